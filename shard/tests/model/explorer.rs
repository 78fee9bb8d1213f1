//! Breadth-first search over all schedules within bounds, with shortest counter-examples.
//!
//! States are remembered by a 64-bit hash only: with ten million states the chance that two share one,
//! and something is overlooked, is below one in a hundred thousand. States that differ only by the names of
//! nodes that play the same part count as one.

use crate::rules::{Bounds, Rules};
use crate::state::{NODES, Node, NodeSet, State};
use crate::step::{Event, Outcome, Violation, events, fits, step};
use std::collections::HashSet;
use std::fmt;
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// A schedule that breaks a promise.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct CounterExample {
    pub(crate) events: Vec<Event>,
    pub(crate) violation: Violation,
}

impl fmt::Debug for CounterExample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} steps: ", self.events.len())?;
        self.events
            .iter()
            .try_for_each(|event| write!(f, "{event:?}; "))?;
        write!(f, "=> {:?}", self.violation)
    }
}

/// How a search went.
pub(crate) struct Search {
    /// Different states that were reached.
    pub(crate) states: usize,
    /// The longest schedule that was followed.
    pub(crate) depth: usize,
    /// Whether everything within the bounds was looked at.
    pub(crate) exhausted: bool,
    /// Steps that were left out because a journal of the model was full.
    pub(crate) clipped: usize,
    /// The first, hence a shortest, schedule that breaks a promise.
    pub(crate) found: Option<CounterExample>,
}

impl fmt::Display for Search {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exhausted = if self.exhausted {
            "exhausted"
        } else {
            "not exhausted"
        };
        write!(
            f,
            "{} states, depth {}, {exhausted}",
            self.states, self.depth
        )?;
        if self.clipped > 0 {
            write!(f, ", {} steps clipped", self.clipped)?;
        }
        match &self.found {
            Some(found) => write!(f, "; VIOLATION in {found:?}"),
            None => Ok(()),
        }
    }
}

/// Searches until a promise is broken, everything was looked at, or `states_max` states were reached.
pub(crate) fn search(rules: &Rules, bounds: &Bounds, states_max: usize) -> Search {
    assert!(
        fits(bounds),
        "the table of the model is too small for these bounds"
    );
    let events = events(bounds);
    let symmetries = symmetries(bounds);
    let first = State::new(bounds.owners);
    let mut seen: HashSet<u64, BuildHasherDefault<Ready>> = HashSet::default();
    seen.insert(fingerprint(&first, &symmetries));
    // For each state its parent and the event that led to it; the first is its own parent.
    let mut parents: Vec<(u32, u16)> = vec![(0, 0)];
    let mut front = vec![(first, 0u32)];
    let mut result = Search {
        states: 1,
        depth: 0,
        exhausted: false,
        clipped: 0,
        found: None,
    };
    while !front.is_empty() {
        let mut behind = Vec::new();
        for (state, id) in &front {
            for (index, event) in events.iter().enumerate() {
                match step(state, *event, rules, bounds) {
                    Outcome::Nothing => {}
                    Outcome::Clipped => result.clipped += 1,
                    Outcome::Broken(violation) => {
                        let mut schedule = path(&parents, &events, *id);
                        schedule.push(*event);
                        result.found = Some(CounterExample {
                            events: schedule,
                            violation,
                        });
                        result.depth += 1;
                        return result;
                    }
                    Outcome::Next(next) => {
                        if seen.insert(fingerprint(&next, &symmetries)) {
                            behind.push((*next, parents.len() as u32));
                            parents.push((*id, index as u16));
                        }
                    }
                }
            }
            result.states = seen.len();
            if result.states >= states_max {
                return result;
            }
        }
        result.depth += usize::from(!behind.is_empty());
        front = behind;
    }
    result.exhausted = true;
    result
}

/// Follows one schedule. Events that cannot happen are passed over, as a refused message is.
pub(crate) fn replay(schedule: &[Event], rules: &Rules, bounds: &Bounds) -> Option<CounterExample> {
    let mut state = State::new(bounds.owners);
    for (index, event) in schedule.iter().enumerate() {
        match step(&state, *event, rules, bounds) {
            Outcome::Nothing | Outcome::Clipped => {}
            Outcome::Next(next) => state = *next,
            Outcome::Broken(violation) => {
                return Some(CounterExample {
                    events: schedule[..=index].to_vec(),
                    violation,
                });
            }
        }
    }
    None
}

fn path(parents: &[(u32, u16)], events: &[Event], mut id: u32) -> Vec<Event> {
    let mut schedule = Vec::new();
    while id != 0 {
        let (parent, event) = parents[id as usize];
        schedule.push(events[usize::from(event)]);
        id = parent;
    }
    schedule.reverse();
    schedule
}

/// The renamings of nodes under which bounds look the same: the first owners stay the first owners, and
/// every set that changes lead to is mapped to itself.
fn symmetries(bounds: &Bounds) -> Vec<[Node; NODES]> {
    let mut all = Vec::new();
    for code in 0..NODES.pow(NODES as u32) {
        let names: [Node; NODES] = std::array::from_fn(|i| code / NODES.pow(i as u32) % NODES);
        let image = |set: NodeSet| NodeSet(set.iter().fold(0, |all, node| all | 1 << names[node]));
        let first = NodeSet((1 << bounds.owners) - 1);
        let everything = NodeSet((1 << NODES) - 1);
        let fixed = [first, everything]
            .into_iter()
            .chain(bounds.changes.iter().copied());
        if fixed.into_iter().all(|set| image(set) == set) {
            all.push(names);
        }
    }
    all
}

/// The smallest hash under all renamings.
fn fingerprint(state: &State, symmetries: &[[Node; NODES]]) -> u64 {
    let hash = |names| {
        let mut hasher = Mixer(0);
        state.renamed(names).hash(&mut hasher);
        hasher.finish()
    };
    symmetries.iter().map(hash).min().unwrap_or(0)
}

/// A quick 64-bit hash of small fields: multiply and rotate, mixed thoroughly at the end (splitmix64).
struct Mixer(u64);

impl Mixer {
    fn add(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(5) ^ value).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
}

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let value = chunk
                .iter()
                .rev()
                .fold(0, |all, byte| all << 8 | u64::from(*byte));
            self.add(value);
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.add(u64::from(value));
    }

    fn write_usize(&mut self, value: usize) {
        self.add(value as u64);
    }

    fn finish(&self) -> u64 {
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}

/// Fingerprints are hashes already.
#[derive(Default)]
struct Ready(u64);

impl Hasher for Ready {
    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
