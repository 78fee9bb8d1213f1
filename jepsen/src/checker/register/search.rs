//! Looks for an order of one register's calls: Wing and Gong's search with Lowe's memory of configurations.
//!
//! A configuration is what has been put in order so far: which calls, and what the register then holds. The next call
//! may be any that was begun before the first end among the calls that are still to be ordered (the *horizon*). Four
//! observations keep the number of configurations near the number of calls:
//!
//! - A call without effect (a read, a condition that did not hold) that fits now can be taken now: taking it
//!   later forbids nothing that taking it now allows. So only calls with effect make branches.
//! - A call with effect can be next only if the register holds what it expects.
//! - Calls of unknown fate with the same effect are interchangeable; the one that was begun first stands for all.
//! - A configuration that has used more calls of unknown fate than another one that is else equal can do nothing that
//!   the other one cannot.

use crate::history::Micros;
use std::collections::HashMap;

/// What a register holds; none: it does not exist.
pub(super) type State = Option<u64>;

/// States that are remembered of where a search ended, for its message.
const STATES_KEPT_MAX: usize = 5;

/// What a call says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Effect {
    /// The register held this.
    Holds(State),
    /// The register held something else than this.
    HoldsNot(State),
    /// The register held `expected`, and `new` afterwards.
    Set { expected: State, new: State },
}

impl Effect {
    /// What the register holds afterwards; none: the call cannot happen in this state.
    fn apply(self, state: State) -> Option<State> {
        match self {
            Self::Holds(value) => (value == state).then_some(state),
            Self::HoldsNot(value) => (value != state).then_some(state),
            Self::Set { expected, new } => (expected == state).then_some(new),
        }
    }

    fn changes(self) -> bool {
        matches!(self, Self::Set { .. })
    }
}

/// One call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    /// Its line.
    pub(super) line: usize,
    /// When it began.
    pub(super) invoked: Micros,
    /// When it had happened; none: it may happen at any time after its begin, or never.
    pub(super) completed: Option<Micros>,
    /// What it says.
    pub(super) effect: Effect,
}

/// What a search came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// There is an order.
    Order,
    /// There is none.
    None(Stuck),
    /// The limit came first.
    Undecided,
}

/// Where all orders end.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Stuck {
    /// The line of the call that fits nowhere.
    pub(super) line: usize,
    /// When that call was over.
    horizon: Micros,
    /// What the register may hold then, as far as it is kept.
    pub(super) states: Vec<State>,
}

/// Looks for an order, making at most so many configurations.
pub(super) fn search(calls: &[Call], configurations_max: usize) -> Found {
    let problem = Problem::new(calls);
    let mut seen = Seen::default();
    let mut stuck = Stuck::default();
    let mut made = 1;
    let mut stack = vec![Configuration::default()];
    while let Some(mut configuration) = stack.pop() {
        let Some((horizon, line)) = problem.settle(&mut configuration) else {
            return Found::Order;
        };
        if !seen.admit(&configuration) {
            continue;
        }
        stuck.see(horizon, line, configuration.state);
        let before = stack.len();
        problem.branch(&configuration, horizon, &mut stack);
        made += stack.len() - before;
        if made > configurations_max {
            return Found::Undecided;
        }
    }
    Found::None(stuck)
}

impl Stuck {
    fn see(&mut self, horizon: Micros, line: usize, state: State) {
        if horizon > self.horizon || self.line == 0 {
            *self = Self {
                line,
                horizon,
                states: Vec::new(),
            };
        }
        let known = horizon < self.horizon || self.states.contains(&state);
        if !known && self.states.len() < STATES_KEPT_MAX {
            self.states.push(state);
        }
    }
}

/// The calls in order of their begins, those of unknown fate by what they would do.
struct Problem {
    known: Vec<(Call, Micros)>,
    unknown: Vec<Class>,
}

/// Calls of unknown fate with the same effect.
struct Class {
    effect: Effect,
    /// Ascending.
    begins: Vec<Micros>,
}

/// How many calls of each class were used; only classes with some, ascending.
type Used = Vec<(usize, usize)>;

/// What has been put in order.
#[derive(Clone, Default)]
struct Configuration {
    done: Done,
    state: State,
    used: Used,
}

impl Problem {
    fn new(calls: &[Call]) -> Self {
        let mut known = Vec::new();
        let mut classes: HashMap<Effect, Vec<Micros>> = HashMap::new();
        for call in calls {
            match call.completed {
                Some(completed) => known.push((*call, completed)),
                None => classes.entry(call.effect).or_default().push(call.invoked),
            }
        }
        known.sort_by_key(|(call, completed)| (call.invoked, *completed, call.line));
        let classes = classes.into_iter().map(|(effect, mut begins)| {
            begins.sort_unstable();
            Class { effect, begins }
        });
        let mut unknown: Vec<Class> = classes.collect();
        unknown.sort_by_key(|class| class.begins[0]);
        Self { known, unknown }
    }

    /// The known calls that may be next at most until `horizon` and are not in order yet, with their places.
    fn open<'a>(
        &'a self,
        done: &'a Done,
        horizon: Micros,
    ) -> impl Iterator<Item = (usize, &'a (Call, Micros))> {
        let known = self.known.iter().enumerate().skip(done.first());
        known
            .take_while(move |(_, (call, _))| call.invoked <= horizon)
            .filter(|(place, _)| !done.has(*place))
    }

    /// Takes all calls without effect that fit. The horizon and the line of the call that makes it; none: every known
    /// call is in order.
    fn settle(&self, configuration: &mut Configuration) -> Option<(Micros, usize)> {
        loop {
            let mut horizon = None;
            for (_, (call, completed)) in self.open(&configuration.done, Micros::MAX) {
                if horizon.is_some_and(|(end, _)| call.invoked > end) {
                    break;
                }
                if horizon.is_none_or(|(end, _)| *completed < end) {
                    horizon = Some((*completed, call.line));
                }
            }
            let (end, _) = horizon?;
            let state = configuration.state;
            let open = self.open(&configuration.done, end);
            let fitting = open.filter(|(_, (call, _))| {
                !call.effect.changes() && call.effect.apply(state).is_some()
            });
            let fitting: Vec<usize> = fitting.map(|(place, _)| place).collect();
            if fitting.is_empty() {
                return horizon;
            }
            for place in fitting {
                configuration.done.insert(place);
            }
        }
    }

    /// Pushes every configuration that one more call with effect leads to; the likeliest last.
    fn branch(&self, from: &Configuration, horizon: Micros, stack: &mut Vec<Configuration>) {
        for (number, class) in self.unknown.iter().enumerate() {
            if class.begins[0] > horizon {
                break;
            }
            let Some(state) = class.effect.apply(from.state) else {
                continue;
            };
            let place = from.used.binary_search_by_key(&number, |(class, _)| *class);
            let used = place.map_or(0, |place| from.used[place].1);
            if class
                .begins
                .get(used)
                .is_some_and(|begin| *begin <= horizon)
            {
                let mut next = from.clone();
                next.state = state;
                match place {
                    Ok(place) => next.used[place].1 += 1,
                    Err(place) => next.used.insert(place, (number, 1)),
                }
                stack.push(next);
            }
        }
        let open = self.open(&from.done, horizon);
        let mut known: Vec<_> = open
            .filter(|(_, (call, _))| call.effect.changes())
            .collect();
        known.sort_by_key(|(_, (_, completed))| std::cmp::Reverse(*completed));
        for (place, (call, _)) in known {
            if let Some(state) = call.effect.apply(from.state) {
                let mut next = from.clone();
                next.state = state;
                next.done.insert(place);
                stack.push(next);
            }
        }
    }
}

/// A set of places that grows from the front: words of bits, without full ones in front and empty ones behind.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
struct Done {
    full_words: usize,
    words: Vec<u64>,
}

impl Done {
    /// The first place that may be missing.
    fn first(&self) -> usize {
        let open = self.words.first().map_or(0, |word| word.trailing_ones());
        self.full_words * 64 + open as usize
    }

    fn has(&self, place: usize) -> bool {
        match (place / 64).checked_sub(self.full_words) {
            None => true,
            Some(word) => {
                let word = self.words.get(word).copied().unwrap_or(0);
                word >> (place % 64) & 1 == 1
            }
        }
    }

    fn insert(&mut self, place: usize) {
        let Some(word) = (place / 64).checked_sub(self.full_words) else {
            return;
        };
        if self.words.len() <= word {
            self.words.resize(word + 1, 0);
        }
        self.words[word] |= 1 << (place % 64);
        let full = self.words.iter().take_while(|word| **word == u64::MAX);
        let full = full.count();
        self.words.drain(..full);
        self.full_words += full;
    }
}

/// Configurations that have been looked at, without those that another one makes needless.
#[derive(Default)]
struct Seen(HashMap<(Done, State), Vec<Used>>);

impl Seen {
    /// Whether a configuration can do something that none before it could; remembers it then.
    fn admit(&mut self, configuration: &Configuration) -> bool {
        let key = (configuration.done.clone(), configuration.state);
        let all = self.0.entry(key).or_default();
        let used = &configuration.used;
        if all.iter().any(|fewer| is_within(fewer, used)) {
            return false;
        }
        all.retain(|more| !is_within(used, more));
        all.push(used.clone());
        true
    }
}

/// Whether every class is used at most as often in `fewer` as in `more`.
fn is_within(fewer: &[(usize, usize)], more: &[(usize, usize)]) -> bool {
    fewer.iter().all(|(class, count)| {
        let place = more.binary_search_by_key(class, |(class, _)| *class);
        place.is_ok_and(|place| more[place].1 >= *count)
    })
}
