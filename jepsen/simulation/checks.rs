//! What must hold: how whole a cluster is, and the promises at rest.

use crate::{
    clients::{self, EVER},
    coverage::Seen,
    process::Process,
    registers::KEYS,
    world::{Backup, World},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use trefoil_model::{NodeId, ShardSet};
use trefoil_raft::{MemberState, State};

/// How long everything may take to be whole once nothing goes wrong any more.
const WHOLE_WITHIN: Duration = Duration::from_secs(120);
/// How long replicas may differ then.
const EQUAL_WITHIN: Duration = Duration::from_secs(30);
/// How often to look.
const LOOK: Duration = Duration::from_millis(250);
/// How a schedule ends whose founding nobody but an operator may resolve.
pub(crate) const STUCK: &str = "stuck";

/// Whether a placement is known everywhere and all replicas serve.
pub(crate) fn has_begun(world: &World) -> bool {
    let founders = (0..world.setup.founders).map(|index| world.process(index));
    let processes: Option<Vec<_>> = founders.collect();
    processes.is_some_and(|processes| {
        processes.iter().all(|process| {
            let known = process
                .plane
                .get()
                .is_some_and(|plane| plane.routing().shards() > 0);
            known
                && process
                    .metadata
                    .get()
                    .is_some_and(|metadata| metadata.leader().is_some())
        })
    })
}

/// Whether the nodes say that nothing will happen by itself.
pub(crate) fn founding_is_stuck(world: &World) -> bool {
    let processes = world.processes();
    let stuck = |process: &Arc<Process>| {
        let reason = process
            .metadata
            .get()
            .and_then(|metadata| metadata.forming_reason());
        reason.is_some_and(|reason| reason.contains("empty the data directories"))
    };
    processes.iter().any(stuck)
}

/// Why nodes are not part of a cluster, for people.
pub(crate) fn reasons(world: &World) -> String {
    let reasons = world.processes().into_iter().map(|process| {
        let reason = process
            .metadata
            .get()
            .and_then(|metadata| metadata.forming_reason());
        format!("{}: {reason:?}", process.name())
    });
    reasons.collect::<Vec<_>>().join("; ")
}

/// The machine whose node leads, by its own word.
pub(crate) fn leader(world: &World) -> Option<usize> {
    let leads = |process: &Arc<Process>| {
        let leader = process
            .metadata
            .get()
            .and_then(|metadata| metadata.leader());
        leader.is_some() && leader == process.node()
    };
    let leader = world.processes().into_iter().find(leads);
    leader.map(|process| process.machine)
}

/// The newest state that any node has.
pub(crate) fn newest_state(processes: &[Arc<Process>]) -> Option<Arc<State>> {
    let states = processes
        .iter()
        .filter_map(|process| process.metadata.get());
    states
        .map(|metadata| metadata.state())
        .max_by_key(|state| state.applied())
}

/// Whether nothing is lost, moving or being filled: every member runs, and every replica is trusted everywhere.
pub(crate) fn is_whole(world: &World) -> bool {
    lacks(world).is_none()
}

/// The first thing that is not whole.
fn lacks(world: &World) -> Option<String> {
    let processes = world.processes();
    let Some(state) = newest_state(&processes) else {
        return Some("nobody runs".to_owned());
    };
    let running: BTreeSet<NodeId> = processes
        .iter()
        .filter_map(|process| process.node())
        .collect();
    for (shard, entry) in state.placement().iter() {
        let configuration = &entry.configuration;
        if configuration.is_joint() {
            return Some(format!("shard {shard} changes its owners"));
        }
        if let Some(away) = configuration
            .new
            .iter()
            .find(|owner| !running.contains(owner))
        {
            return Some(format!("owner {away} of shard {shard} is away"));
        }
    }
    for member in state.members() {
        let stays = member.state == MemberState::Active && !running.contains(&member.node);
        if stays {
            return Some(format!("member {} is away", member.node));
        }
    }
    if state.placement().is_empty() {
        return Some("there is no placement".to_owned());
    }
    processes
        .iter()
        .find_map(|process| lacks_at(process, &state, &running))
}

fn lacks_at(process: &Arc<Process>, state: &State, running: &BTreeSet<NodeId>) -> Option<String> {
    let name = process.name();
    let (Some(plane), Some(metadata)) = (process.plane.get(), process.metadata.get()) else {
        return Some(format!("{name} has not started"));
    };
    let raft = metadata.status();
    if let Some(gone) = raft.voters.iter().find(|voter| !running.contains(voter)) {
        return Some(format!("voter {gone} is away, says {name}"));
    }
    if raft.leader.is_none() {
        return Some(format!("{name} knows no leader"));
    }
    if metadata.state().applied() != state.applied() {
        return Some(format!("{name} is behind in metadata"));
    }
    let status = plane.status();
    if !status.filling.is_empty() || !status.damaged.is_empty() || !status.leaving.is_empty() {
        let (filling, damaged) = (&status.filling, &status.damaged);
        let leaving = &status.leaving;
        return Some(format!(
            "{name}: filling {filling:?}, damaged {damaged:?}, leaving {leaving:?}"
        ));
    }
    // A mark that is still there comes back as a loss with the next start.
    if let Some(marked) = plane.manifest.pin().damaged().next() {
        return Some(format!("{name} has block {} marked", marked.meta.id));
    }
    let owned = state.placement().iter().filter(|(_, entry)| {
        let node = process.who().node;
        entry.configuration.has_owner(node)
    });
    let owned: ShardSet = owned.map(|(shard, _)| shard).collect();
    if status.serving != owned {
        return Some(format!("{name} serves {:?} of {owned:?}", status.serving));
    }
    plane
        .would_lose_again()
        .then(|| format!("{name} would take old damage for a new loss"))
}

/// Whether every other node knows more of a node's journal than an old copy of its disk has, and all of the metadata, so
/// that a vote that the copy has forgotten matters to nobody.
pub(crate) fn copy_is_surpassed(world: &World, process: &Process, copy: &Backup) -> bool {
    let (Some(metadata), Some(plane)) = (process.metadata.get(), process.plane.get()) else {
        return false;
    };
    let (own, node) = (metadata.status(), process.who().node);
    if own.leader == Some(node) || *metadata.state().placement() != copy.table {
        return false;
    }
    let surpassed_at = |other: &Arc<Process>| {
        let (Some(metadata), Some(peer)) = (other.metadata.get(), other.plane.get()) else {
            return false;
        };
        let status = metadata.status();
        let knows = |shard| {
            let known = peer.position_at(node, shard);
            known.is_some_and(|known| known.0 > copy.journal_end)
        };
        let shared = plane.status().serving.intersection(&peer.status().serving);
        let has_all = status.last_log_index >= own.last_log_index && status.term == own.term;
        has_all && shared.iter().all(knows)
    };
    let processes = world.processes();
    let mut others = processes
        .iter()
        .filter(|other| other.machine != process.machine);
    others.all(surpassed_at)
}

/// Checks everything that must hold once all is repaired and the clients have stopped.
///
/// # Errors
/// Which promise was broken, and how.
pub(crate) async fn at_rest(world: &Arc<World>) -> Result<(), String> {
    // Clients go on for a while, so that a cluster that only looks whole is found out.
    tokio::time::sleep(Duration::from_secs(2)).await;
    world.let_clients_rest();
    let until = world.now() + WHOLE_WITHIN;
    while let Some(what) = lacks(world) {
        fail_if_broken(world)?;
        if world.now() >= until {
            describe(world);
            return Err(format!(
                "not whole {WHOLE_WITHIN:?} after the repair: {what}"
            ));
        }
        for index in world.machines() {
            if world.machine(index).condemned.is_some() {
                crate::trouble::wipe(world, index);
            }
            if !world.machine(index).nodes.is_empty() {
                world.start(index);
            }
        }
        tokio::time::sleep(LOOK).await;
    }
    world.tell(format_args!("everything is whole"));
    for process in world.processes() {
        let missing = clients::query(&process, EVER).await;
        if missing.as_ref().is_none_or(|missing| !missing.is_empty()) {
            let name = process.name();
            return Err(format!(
                "{name} lacks {missing:?} in its answer although all is whole"
            ));
        }
        for key in 0..KEYS {
            clients::read_register(&process, key, &mut BTreeMap::new()).await?;
        }
    }
    fail_if_broken(world)?;
    replicas_become_equal(world).await?;
    states_become_equal(world).await?;
    count(world);
    fail_if_broken(world)
}

/// Tells how every node stands.
fn describe(world: &World) {
    for process in world.processes() {
        let (name, node) = (process.name(), process.node());
        if let Some(metadata) = process.metadata.get() {
            let state = metadata.state();
            for member in state.members() {
                let (id, state, next) = (member.node, member.state, member.superseded_by);
                world.tell(format_args!(
                    "{name} knows {id} as {state:?}, superseded by {next:?}"
                ));
            }
            for (shard, entry) in state.placement().iter() {
                world.tell(format_args!("{name} has {shard} as {entry:?}"));
            }
            world.tell(format_args!("{name} {node:?}: {:?}", metadata.status()));
        }
        if let Some(plane) = process.plane.get() {
            world.tell(format_args!("{name}: {:?}", plane.status()));
        }
    }
}

fn fail_if_broken(world: &World) -> Result<(), String> {
    world.first_broken().map_or(Ok(()), Err)
}

/// All replicas of a shard have the same items.
async fn replicas_become_equal(world: &Arc<World>) -> Result<(), String> {
    let until = world.now() + EQUAL_WITHIN;
    loop {
        let Some(difference) = difference(world) else {
            return Ok(());
        };
        if world.now() >= until {
            return Err(format!(
                "replicas differ {EQUAL_WITHIN:?} after everything was whole: {difference}"
            ));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Digests and numbers of items of one shard, by the starts of windows.
type Windows = BTreeMap<i64, (u128, u64)>;

fn difference(world: &World) -> Option<String> {
    let mut first: BTreeMap<trefoil_model::ShardId, (String, Windows)> = BTreeMap::new();
    for process in world.processes() {
        let plane = process.plane.get()?;
        let serving = plane.status().serving;
        let Some(digests) = plane.digests_between(&serving, EVER) else {
            return Some(format!("{} has a damaged block", process.name()));
        };
        for shard in serving.iter() {
            let of_shard = digests.iter().filter(|((found, _), _)| *found == shard);
            let windows: BTreeMap<i64, (u128, u64)> = of_shard
                .map(|((_, window), digest)| (*window, *digest))
                .collect();
            match first.get(&shard) {
                None => drop(first.insert(shard, (process.name(), windows))),
                Some((_, known)) if *known == windows => {}
                Some((other, known)) => {
                    let items = |windows: &BTreeMap<i64, (u128, u64)>| {
                        windows.values().map(|(_, items)| items).sum::<u64>()
                    };
                    return Some(format!(
                        "shard {shard} has {} items at {other} and {} at {}",
                        items(known),
                        items(&windows),
                        process.name()
                    ));
                }
            }
        }
    }
    None
}

/// The state machines of all members have applied the same.
async fn states_become_equal(world: &Arc<World>) -> Result<(), String> {
    let until = world.now() + EQUAL_WITHIN;
    loop {
        let states: Vec<Arc<State>> = world
            .processes()
            .iter()
            .filter_map(|process| process.metadata.get().map(|metadata| metadata.state()))
            .collect();
        let newest = states.iter().map(|state| state.applied()).max();
        if states.iter().all(|state| Some(state.applied()) == newest) {
            return match states.windows(2).all(|pair| pair[0] == pair[1]) {
                true => Ok(()),
                false => Err("two state machines differ at the same entry".to_owned()),
            };
        }
        if world.now() >= until {
            return Err("state machines do not come to the same entry".to_owned());
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Counts what only the nodes know.
fn count(world: &World) {
    for process in world.processes() {
        if let Some(status) = process.plane.get().map(|plane| plane.status()) {
            world.saw_times(Seen::ReplicaCopied, status.copies);
            world.saw_times(Seen::ParcelFetched, status.fetched_parcels);
        }
    }
}
