//! Clients at work: writers, readers, and those who change registers. They are outside of the cluster, talk to any node
//! that runs, and check every answer that they get.

use crate::{
    coverage::Seen,
    ledger::TENANT,
    network::Class,
    plane::{Part, Plane},
    process::Process,
    registers::{KEYS, Registers},
    world::{WALL_START, World},
};
use bytes::Bytes;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use trefoil_model::{NodeId, ShardSet, TenantId, TimeRange, key_hash, shard_of};
use trefoil_raft::{Change, Command, Condition, MetadataError, Reply};
use trefoil_shard::{Routing, WriteOutcome};
use trefoil_store_metrics::BodyWriter;

/// How long a node may work on a part of a query.
const PART_TIMEOUT: Duration = Duration::from_secs(2);
/// Rounds of questions to owners before a coordinator gives up.
const ROUNDS_MAX: usize = 6;
/// All times.
pub(crate) const EVER: TimeRange = TimeRange {
    start: i64::MIN,
    end: i64::MAX,
};
/// Where the samples' times lie: now, and in windows that are closed.
const HOURS_BACK: [i64; 4] = [0, 0, 5, 9];

/// Starts the clients; they work until they are told to rest.
pub(crate) fn start(world: &Arc<World>) {
    for _ in 0..3 {
        tokio::spawn(write(world.clone()));
    }
    for _ in 0..2 {
        tokio::spawn(read(world.clone()));
        tokio::spawn(change(world.clone()));
    }
}

impl World {
    /// A process that runs, any.
    fn some_process(&self) -> Option<Arc<Process>> {
        let index = self.roll(|dice| dice.below(self.machines().len() as u64));
        self.process(index as usize)
    }
}

async fn write(world: Arc<World>) {
    loop {
        let pause = world.roll(|dice| dice.millis(20, 200));
        tokio::time::sleep(pause).await;
        if world.clients_rest() {
            return;
        }
        let numbers = some_items(&world);
        for _ in 0..2 {
            let Some(process) = world.some_process() else {
                continue;
            };
            let timeout = world.roll(|dice| dice.millis(100, 3_000));
            let held = write_through(&process, &numbers, timeout).await;
            let name = process.name();
            world.tell(format_args!("{name} took {numbers:?}: {held:?}"));
            // A process that has ended can have said nothing.
            if held == Some(WriteOutcome::Held) && process.is_alive() {
                world.saw(Seen::WriteHeld);
                world.ledger.lock().acknowledge(&numbers);
                break;
            }
            world.saw(Seen::WriteUnavailable);
        }
    }
}

/// Samples of some series at a time of their own.
fn some_items(world: &World) -> Vec<usize> {
    let (count, first, hours) = world.roll(|dice| {
        let hours = dice.pick(&HOURS_BACK);
        (dice.within(1, 6), dice.next() % 1024, hours)
    });
    let mut ledger = world.ledger.lock();
    let at = WALL_START - hours * 3_600_000 + ledger.sent() as i64;
    (0..count)
        .map(|next| ledger.send(first + next, at))
        .collect()
}

/// Writes samples through a node; nothing when it cannot try.
pub(crate) async fn write_through(
    process: &Arc<Process>,
    numbers: &[usize],
    timeout: Duration,
) -> Option<WriteOutcome> {
    let work = async {
        let plane = process.plane.get()?;
        let tenant = process.tenant(TENANT).await.ok()?;
        let routing = plane.routing();
        if routing.shards() == 0 {
            return None;
        }
        let parcels = encode(&process.world, tenant, &routing, numbers);
        Some(plane.write(tenant, parcels, timeout).await)
    };
    let patience = timeout + Duration::from_secs(1);
    tokio::time::timeout(patience, work).await.ok().flatten()
}

/// One body for each group of shards that has the same owners.
fn encode(
    world: &World,
    tenant: TenantId,
    routing: &Routing,
    numbers: &[usize],
) -> Vec<(ShardSet, Bytes)> {
    let mut groups: BTreeMap<usize, (ShardSet, BodyWriter)> = BTreeMap::new();
    for number in numbers {
        let item = world.ledger.lock().item(*number);
        let shard = shard_of(key_hash(tenant, &item.canonical), routing.shards());
        let (shards, writer) = groups.entry(routing.group_of(shard)).or_insert_with(|| {
            let writer = BodyWriter::new().expect("there is memory for a writer");
            (ShardSet::new(), writer)
        });
        shards.insert(shard);
        writer
            .add_series(
                shard,
                &item.canonical,
                [(item.at, f64::from_bits(item.bits))],
            )
            .expect("a few samples fit into a body");
    }
    let bodies = groups.into_values().map(|(shards, mut writer)| {
        let body = writer.finish().expect("a few samples can be compressed");
        (shards, Bytes::from(body))
    });
    bodies.collect()
}

async fn read(world: Arc<World>) {
    loop {
        let pause = world.roll(|dice| dice.millis(50, 500));
        tokio::time::sleep(pause).await;
        if world.clients_rest() {
            return;
        }
        let range = world.roll(|dice| match dice.below(3) {
            0 => {
                let start = WALL_START - dice.pick(&HOURS_BACK) * 3_600_000;
                TimeRange {
                    start,
                    end: start + 600_000,
                }
            }
            _ => EVER,
        });
        let Some(process) = world.some_process() else {
            continue;
        };
        if world.roll(|dice| dice.chance(300)) {
            query_directly(&process, range).await;
        } else {
            let missing = query(&process, range).await;
            let name = process.name();
            world.tell(format_args!("{name} answers, but for {missing:?}"));
        }
    }
}

/// Asks one node and checks its answer. Gives the shards that it could not answer for; none when it did not answer.
pub(crate) async fn query(process: &Arc<Process>, range: TimeRange) -> Option<ShardSet> {
    let world = &process.world;
    let plane = process.plane.get()?;
    // What was acknowledged before the query began must be in the answer.
    let mark = world.ledger.lock().mark();
    let tenant = tokio::time::timeout(PART_TIMEOUT, process.tenant(TENANT)).await;
    let tenant = tenant.ok()?.ok()?;
    let all = ShardSet::all(plane.routing().shards());
    if all.is_empty() {
        return None;
    }
    let (missing, parts) = coordinate(process, plane, tenant, &all, range).await;
    if !process.is_alive() {
        return None;
    }
    let place = (tenant, plane.routing().shards());
    for (node, part) in parts {
        check(process, mark, place, node, range, &part);
    }
    world.saw(match missing.is_empty() {
        true => Seen::QueryComplete,
        false => Seen::QueryPartial,
    });
    Some(missing)
}

/// Checks what an evaluator said, when it was asked by this process.
fn check(
    process: &Process,
    mark: usize,
    place: (TenantId, u16),
    node: NodeId,
    range: TimeRange,
    part: &Part,
) {
    let (world, name) = (&process.world, process.name());
    let ledger = world.ledger.lock();
    let checked = ledger.check(mark, place, &part.complete, range, &part.series);
    drop(ledger);
    if let Err(how) = checked {
        world.broken(format!("node {node}, asked by {name}: {how}"));
    }
    if !part.gaps.is_empty() {
        let gaps = &part.gaps;
        world.broken(format!("node {node} says that {gaps:?} lost data for good"));
    }
}

/// Has a node evaluate all shards by itself, as no coordinator that sees another owner would, and checks what it
/// promises.
pub(crate) async fn query_directly(process: &Arc<Process>, range: TimeRange) {
    let world = &process.world;
    let (Some(plane), Some(metadata)) = (process.plane.get(), process.metadata.get()) else {
        return;
    };
    let mark = world.ledger.lock().mark();
    let shards = plane.routing().shards();
    let (Some(tenant), true) = (metadata.state().tenant_id(TENANT), shards > 0) else {
        return;
    };
    let all = ShardSet::all(shards);
    let work = plane.evaluate(tenant, all, range, PART_TIMEOUT / 2);
    let part = tokio::time::timeout(PART_TIMEOUT, work).await;
    let (Ok(part), true) = (part, process.is_alive()) else {
        return;
    };
    let name = process.name();
    world.tell(format_args!("{name} evaluates {:?} itself", part.complete));
    world.saw(Seen::EvaluatedDirectly);
    if part.complete.len() < usize::from(shards) {
        world.saw(Seen::EvaluationRefused);
    }
    check(
        process,
        mark,
        (tenant, shards),
        process.who().node,
        range,
        &part,
    );
}

/// Asks every shard's evaluator; asks others where some refuse.
async fn coordinate(
    process: &Arc<Process>,
    plane: &Plane,
    tenant: TenantId,
    all: &ShardSet,
    range: TimeRange,
) -> (ShardSet, Vec<(NodeId, Part)>) {
    let here = process.who().node;
    let (mut missing, mut parts, mut excluded) = (ShardSet::new(), Vec::new(), Vec::new());
    let mut remaining = all.clone();
    for _ in 0..ROUNDS_MAX {
        let reachable = |node| process.directory.lock().get(&node).is_some_and(|w| w.alive);
        let plan = plane.routing().plan(here, &remaining, &excluded, reachable);
        missing = missing.union(&plan.missing);
        remaining = ShardSet::new();
        let mut asked = tokio::task::JoinSet::new();
        for (node, shards) in plan.parts {
            asked.spawn(ask(process.clone(), node, tenant, shards, range));
        }
        while let Some(answered) = asked.join_next().await {
            let Ok((node, shards, part)) = answered else {
                continue;
            };
            let complete = part.as_ref().map(|part| part.complete.clone());
            let refused = shards.difference(&complete.unwrap_or_default());
            remaining = remaining.union(&refused);
            excluded.push((node, refused));
            parts.extend(part.map(|part| (node, part)));
        }
        if remaining.is_empty() {
            break;
        }
    }
    (missing.union(&remaining), parts)
}

async fn ask(
    process: Arc<Process>,
    node: NodeId,
    tenant: TenantId,
    shards: ShardSet,
    range: TimeRange,
) -> (NodeId, ShardSet, Option<Part>) {
    let wanted = shards.clone();
    let evaluate = move |evaluator: Arc<Process>| async move {
        let plane = evaluator.plane.get()?;
        Some(
            plane
                .evaluate(tenant, wanted, range, PART_TIMEOUT / 2)
                .await,
        )
    };
    let work = async {
        if process.node() == Some(node) {
            return evaluate(process.clone()).await;
        }
        let machine = process.machine_of(node)?;
        let answer = process
            .world
            .ask(&process, (machine, node, Class::Other), |evaluator| {
                Box::pin(evaluate(evaluator))
            });
        answer.await.ok().flatten()
    };
    let part = tokio::time::timeout(PART_TIMEOUT, work).await;
    (node, shards, part.ok().flatten())
}

/// Reads and replaces registers of the metadata plane.
async fn change(world: Arc<World>) {
    let mut known: BTreeMap<u64, u64> = BTreeMap::new();
    loop {
        let (pause, key, reads) = world.roll(|dice| {
            let pause = dice.millis(50, 800);
            (pause, dice.below(KEYS), dice.chance(400))
        });
        tokio::time::sleep(pause).await;
        if world.clients_rest() {
            return;
        }
        let Some(process) = world.some_process() else {
            continue;
        };
        let outcome = match reads {
            true => read_register(&process, key, &mut known).await,
            false => write_register(&process, key, &mut known).await,
        };
        if let Err(how) = outcome {
            world.broken(how);
        }
    }
}

/// Reads a register, linearizably.
///
/// # Errors
/// When no linearizable register answers so.
pub(crate) async fn read_register(
    process: &Arc<Process>,
    key: u64,
    known: &mut BTreeMap<u64, u64>,
) -> Result<(), String> {
    let world = &process.world;
    let Some(metadata) = process.metadata.get() else {
        return Ok(());
    };
    let floor = world.registers.lock().floor(key);
    let Ok(state) = metadata.read_linearizable().await else {
        return Ok(());
    };
    if !process.is_alive() {
        return Ok(());
    }
    let value = state.value(&Registers::key(key));
    let seen = value
        .map(|value| (value.version, value.bytes.clone()))
        .unwrap_or_default();
    known.insert(key, seen.0);
    world.saw(Seen::RegisterRead);
    world.tell(format_args!(
        "{} reads register {key}: {}",
        process.name(),
        seen.0
    ));
    world.registers.lock().read(key, floor, seen)
}

/// Replaces a register's value where it is still the one that was known.
///
/// # Errors
/// When no linearizable register answers so.
pub(crate) async fn write_register(
    process: &Arc<Process>,
    key: u64,
    known: &mut BTreeMap<u64, u64>,
) -> Result<(), String> {
    let world = &process.world;
    let Some(metadata) = process.metadata.get() else {
        return Ok(());
    };
    let name = Registers::key(key);
    let expected = known.get(&key).copied().unwrap_or_default();
    let (floor, value) = {
        let mut registers = world.registers.lock();
        (registers.floor(key), registers.fresh())
    };
    let condition = match expected {
        0 => Condition::Absent { key: name.clone() },
        version => Condition::Version {
            key: name.clone(),
            version,
        },
    };
    let command = Command::Write {
        conditions: vec![condition],
        changes: vec![Change::Put {
            key: name,
            value: value.clone(),
        }],
    };
    let answer = metadata.propose(command).await;
    world.tell(format_args!(
        "{} writes register {key} over {expected}: {answer:?}",
        process.name()
    ));
    if !process.is_alive() {
        world.saw(Seen::RegisterUnknown);
        return Ok(());
    }
    match answer {
        Ok(Reply::Written { version }) => {
            known.insert(key, version);
            world.saw(Seen::RegisterWritten);
            let mut registers = world.registers.lock();
            registers.wrote(key, floor, (expected, version), value)
        }
        Err(MetadataError::Refused(_)) => {
            known.remove(&key);
            world.saw(Seen::RegisterRefused);
            world.registers.lock().refused(value)
        }
        _ => {
            known.remove(&key);
            world.saw(Seen::RegisterUnknown);
            Ok(())
        }
    }
}
