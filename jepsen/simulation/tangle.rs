//! A knot of troubles around the owners of one shard, as no dice would throw them: what is acknowledged without the
//! third owner, then trouble at the first one, then nothing from the second one, and questions to the other two.
//!
//! Only together do these show whether a replica answers that lacks something: while all owners hear of each other,
//! whoever lacks something gets it before anybody asks. Only the replication is cut off, so that decisions go on.

use crate::{
    checks, clients,
    coverage::Seen,
    network::Class,
    trouble::{Kind, Troubles},
    world::World,
};
use std::{sync::Arc, time::Duration};
use trefoil_model::ShardId;

/// What may happen to the first owner.
const BLOWS: [Kind; 8] = [
    Kind::Kill,
    Kind::PowerCut,
    Kind::TornCommit,
    Kind::LoseData,
    Kind::LoseData,
    Kind::DamageJournal,
    Kind::DamageBlock,
    Kind::Members,
];

impl Troubles {
    /// Ties the knot and looks on until it is undone.
    pub(crate) async fn tangle(&mut self, world: &Arc<World>) {
        let Some([first, second, third]) = some_owners(world) else {
            return;
        };
        let (apart, blow, alone, deaf) = world.roll(|dice| {
            (
                dice.millis(200, 3_000),
                dice.pick(&BLOWS),
                dice.millis(500, 3_000),
                dice.chance(300),
            )
        });
        let named = [first, second, third].map(|index| index + 1);
        world.tell(format_args!(
            "machines {named:?} are entangled, with {blow:?}"
        ));
        world.saw(Seen::Tangle);
        mute(world, Class::Replication, third, &[first, second]);
        if deaf {
            let others: Vec<usize> = world.machines().collect();
            mute(world, Class::Metadata, third, &others);
        }
        self.look_on(world, apart, &[]).await;
        if let Some(process) = world.process(first) {
            self.strike_at(world, &process, blow).await;
        }
        // The second one's is still there, and is not heard.
        unmute(world);
        mute(world, Class::Replication, second, &[first, third]);
        self.soon(world, first);
        self.look_on(world, alone, &[first, third]).await;
        unmute(world);
    }

    /// Lets time pass while these are asked, each by itself.
    async fn look_on(&mut self, world: &Arc<World>, lasts: Duration, asked: &[usize]) {
        let until = world.now() + lasts;
        while world.now() < until && world.first_broken().is_none() {
            let pause = world.roll(|dice| dice.millis(10, 150));
            tokio::time::sleep(pause).await;
            self.recover(world);
            for index in asked {
                if let Some(process) = world.process(*index) {
                    clients::query_directly(&process, clients::EVER).await;
                }
            }
        }
    }
}

/// The machines of three owners of some shard, in any order; none when they do not all run.
fn some_owners(world: &World) -> Option<[usize; 3]> {
    let state = checks::newest_state(&world.processes())?;
    let table = state.placement();
    let shards = u64::from(table.len());
    if shards == 0 {
        return None;
    }
    let shard = ShardId(world.roll(|dice| dice.below(shards)) as u16);
    let owners = table.get(shard)?.configuration.all_owners();
    let runs = |process: &Arc<crate::process::Process>| {
        process.node().is_some_and(|node| owners.contains(node))
    };
    let processes = world.processes().into_iter().filter(runs);
    let mut left: Vec<usize> = processes.map(|process| process.machine).collect();
    let mut one = || {
        let sides = left.len() as u64;
        (sides > 0).then(|| left.swap_remove(world.roll(|dice| dice.below(sides)) as usize))
    };
    Some([one()?, one()?, one()?])
}

fn mute(world: &World, class: Class, one: usize, others: &[usize]) {
    let mut links = world.links.lock();
    for other in others.iter().filter(|other| **other != one) {
        links
            .muted
            .extend([(class, one, *other), (class, *other, one)]);
    }
}

fn unmute(world: &World) {
    world.links.lock().muted.clear();
}
