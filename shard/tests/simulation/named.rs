//! Named schedules: each is the shortest story in which one rule of the protocol matters. Each is told twice: with
//! the rule's fault planted it must break a promise, and without it must not.

mod deletions;

use crate::{
    coverage::Seen,
    node::EVER,
    world::{Setup, World},
};
use trefoil_model::{NodeId, OwnerSet, ShardId, ShardSet};
use trefoil_shard::{Faults, Record, movement::MovementFaults};

const A: usize = 0;
const B: usize = 1;
const C: usize = 2;
const D: usize = 3;
const E: usize = 4;

/// Tells a story with a fault and without; the fault must break this promise.
fn check(plant: impl Fn(&mut Faults), promise: &str, nodes: u64, story: impl Fn(&mut World)) {
    let plant = |faults: &mut Faults, _: &mut MovementFaults| plant(faults);
    check_movement(plant, promise, nodes, story);
}

/// The same, with faults of the leader's too.
fn check_movement(
    plant: impl Fn(&mut Faults, &mut MovementFaults),
    promise: &str,
    nodes: u64,
    story: impl Fn(&mut World),
) {
    check_setup(|setup| setup.nodes = nodes, plant, promise, story);
}

/// The same, in a cluster that is set up for the story.
fn check_setup(
    prepare: impl Fn(&mut Setup),
    plant: impl Fn(&mut Faults, &mut MovementFaults),
    promise: &str,
    story: impl Fn(&mut World),
) {
    for planted in [true, false] {
        let mut setup = Setup::three();
        setup.shards = 2;
        // Nobody trims, scrubs or retries by itself in the middle of a story.
        setup.scrubs = false;
        setup.settings.journal_bytes_max = 0;
        prepare(&mut setup);
        if planted {
            plant(&mut setup.faults, &mut setup.movement.faults);
        }
        let mut world = World::new(setup, 1);
        world.run(300);
        story(&mut world);
        let broken = world
            .client
            .broken
            .clone()
            .or_else(|| world.check_rest().err());
        println!("planted {planted}: {broken:?}");
        match planted {
            true => {
                let caught = broken.as_ref().is_some_and(|why| why.starts_with(promise));
                assert!(
                    caught,
                    "the planted fault does not break {promise}: {broken:?}"
                );
            }
            false => assert_eq!(broken, None, "the rules do not hold"),
        }
    }
}

impl World {
    /// Cuts both ways between these nodes and all others that are named.
    fn part(&mut self, these: &[usize], others: &[usize]) {
        for here in these {
            for there in others.iter().filter(|there| *there != here) {
                let (here, there) = (self.nodes[*here].id, self.nodes[*there].id);
                self.cut.insert((here, there));
                self.cut.insert((there, here));
            }
        }
    }

    fn join(&mut self, here: usize, there: usize) {
        let (here, there) = (self.nodes[here].id, self.nodes[there].id);
        self.cut.remove(&(here, there));
        self.cut.remove(&(there, here));
    }

    fn without_plane(&mut self, index: usize) {
        let id = self.nodes[index].id;
        self.without_plane.insert(id);
    }

    fn write_one(&mut self, index: usize, shard: u16, timeout_ms: u64) {
        self.write(index, &ShardSet::from_iter([ShardId(shard)]), timeout_ms);
    }

    /// A and B acknowledge an item, and C, which is cut off from both, does not get it.
    fn write_without_c(&mut self) {
        self.part(&[C], &[A, B]);
        self.write_one(A, 0, 500);
        self.run(300);
        assert_eq!(self.acknowledged(), 1);
    }

    /// So many items that some are of every class that deletions know.
    fn write_of_every_class(&mut self) {
        for _ in 0..12 {
            self.write_one(A, 0, 500);
        }
        self.run(300);
    }

    fn delete_every_class(&mut self) {
        for class in 0..3 {
            self.delete(class);
        }
        self.run(500);
    }

    fn acknowledged(&self) -> u64 {
        self.client.acknowledged
    }

    fn ask(&mut self, index: usize) {
        self.query(index, EVER);
        self.run(1500);
    }

    /// Moves a shard and waits until the change has ended.
    fn move_shard(&mut self, shard: u16, owners: &[usize]) {
        self.begin_move(shard, owners);
        self.until(|world| !world.is_joint(shard));
        self.run(100);
    }

    fn is_joint(&self, shard: u16) -> bool {
        let entry = self.plane.now.table.get(ShardId(shard));
        entry.is_some_and(|entry| entry.configuration.is_joint())
    }

    fn serves(&self, index: usize, shard: u16) -> bool {
        let core = self.nodes[index].core.as_ref();
        core.is_some_and(|core| core.status().serving.contains(ShardId(shard)))
    }

    /// Lets time pass, millisecond by millisecond, until something holds.
    fn until(&mut self, holds: impl Fn(&World) -> bool) {
        for _ in 0..10_000 {
            if holds(self) {
                return;
            }
            self.run(1);
        }
        panic!("what the story waits for does not happen");
    }

    fn begin_move(&mut self, shard: u16, owners: &[usize]) {
        let owners: OwnerSet = owners
            .iter()
            .map(|index| NodeId(*index as u64 + 1))
            .collect();
        assert!(self.plane.begin_change(ShardId(shard), owners));
        self.publish();
    }

    fn stores(&self, index: usize, shard: u16) -> bool {
        let only = ShardSet::from_iter([ShardId(shard)]);
        self.nodes[index].store.read(&only, EVER).next().is_some()
    }

    /// The page of the last record of a kind is unreadable; the process does not run.
    fn lose_last(&mut self, index: usize, kind: impl Fn(&Record) -> bool) {
        let mut records = self.nodes[index].journal.records.iter();
        if let Some(at) = records.rposition(|(_, record)| kind(record)) {
            self.nodes[index].lose_page(at);
        }
    }

    fn lose_and_restart(&mut self, index: usize) {
        self.wipe(index);
        self.start(index);
    }
}

#[test]
fn an_amnesiac_waits_for_every_majority() {
    check(
        |faults| faults.refill_from_one = true,
        "D2",
        3,
        |world| {
            world.write_without_c();
            world.part(&[A], &[B]);
            world.join(A, C);
            world.lose_and_restart(A);
            world.run(2000);
            world.part(&[B], &[A, C]);
            world.ask(A);
            world.ask(C);
        },
    );
}

#[test]
fn an_acknowledgement_before_a_loss_does_not_count_after_the_refill() {
    check(
        |faults| {
            faults.amnesia_unrecorded = true;
            // Peers that know its old journal would notice.
            faults.restored_copy_ignored = true;
        },
        "D2",
        4,
        |world| {
            world.part(&[A, D], &[B, C]);
            world.write_one(D, 0, 20_000);
            world.run(50);
            // A holds it alone, loses it, and is refilled by two who never had it.
            world.wipe(A);
            world.cut.clear();
            world.part(&[D], &[A, B, C]);
            world.start(A);
            world.run(3000);
            world.part(&[B], &[A, C]);
            world.join(B, D);
            world.run(1000);
            world.part(&[B], &[D]);
            world.ask(C);
            world.ask(A);
        },
    );
}

#[test]
fn two_owners_do_not_refill_from_each_other() {
    check(
        |faults| faults.filling_counts = true,
        "D2",
        3,
        |world| {
            world.write_without_c();
            world.wipe(A);
            world.wipe(B);
            world.cut.clear();
            // What was acknowledged is gone with two disks: that is not promised, but silence about it is not allowed.
            world.start(A);
            world.start(B);
            world.run(3000);
            world.ask(A);
            world.ask(B);
            world.client.sent.clear();
            world.skip_rest = true;
        },
    );
}

#[test]
fn barriers_list_imports() {
    check(
        |faults| faults.imports_unlisted = true,
        "D2",
        4,
        |world| {
            world.write_without_c();
            world.flush(A);
            world.flush(B);
            world.run(300);
            // B has it back by import only. It needs C to be trusted again, which does not have it.
            world.wipe(B);
            world.join(B, C);
            world.start(B);
            world.until(|world| world.serves(B, 0));
            world.part(&[B], &[C]);
            world.part(&[A], &[B, C, D]);
            world.begin_move(0, &[B, C, D]);
            world.run(2000);
            world.ask(D);
            world.cut.clear();
        },
    );
}

#[test]
fn a_position_in_a_lost_journal_is_not_one_in_the_new_one() {
    check(
        |faults| faults.unknown_run_is_start = true,
        "D2",
        3,
        |world| {
            world.write_without_c();
            world.flush(A);
            world.lose_and_restart(B);
            world.run(1000);
            world.flush(B);
            world.run(300);
            world.join(B, C);
            world.run(300);
            world.part(&[A], &[B]);
            world.ask(C);
        },
    );
}

#[test]
fn a_newly_shared_shard_has_no_position() {
    check(
        |faults| faults.position_per_peer = true,
        "D2",
        4,
        |world| {
            world.move_shard(1, &[A, B, D]);
            world.run(1000);
            world.write_one(D, 1, 500);
            world.run(300);
            for index in [A, B, D] {
                world.flush(index);
            }
            world.run(500);
            // C shares shard 0 with A and B, and nothing with D.
            world.part(&[C], &[D]);
            world.move_shard(1, &[A, B, C]);
            world.part(&[A], &[B, C]);
            world.ask(C);
        },
    );
}

#[test]
fn a_trimmed_journal_is_not_answered_from() {
    check(
        |faults| faults.trimmed_answers_rest = true,
        "D2",
        3,
        |world| {
            world.pause(C);
            world.write_one(A, 0, 500);
            world.run(300);
            world.flush(A);
            world.flush(B);
            world.run(300);
            world.part(&[A], &[B, C]);
            world.resume(C);
            world.ask(C);
            world.ask(C);
        },
    );
}

#[test]
fn a_stale_coordinator_is_refused() {
    check(
        |faults| faults.stale_push_taken = true,
        "D2",
        5,
        |world| {
            world.without_plane(A);
            world.part(&[A], &[B, C, D, E]);
            world.move_shard(0, &[B, C, D]);
            world.run(500);
            world.move_shard(0, &[C, D, E]);
            world.run(500);
            world.join(A, B);
            world.write_one(A, 0, 300);
            world.run(500);
            world.ask(D);
        },
    );
}

#[test]
fn a_stale_reader_is_taught() {
    check(
        |faults| faults.stale_barrier_answered = true,
        "D2",
        5,
        |world| {
            // A hears of nothing, and B cannot drop what it has because E does not confirm.
            world.without_plane(A);
            world.part(&[A], &[B, C, D, E]);
            world.begin_move(0, &[C, D, E]);
            world.until(|world| !world.is_joint(0));
            world.part(&[B], &[E]);
            world.run(500);
            world.write_one(D, 0, 300);
            world.run(500);
            assert_eq!(world.acknowledged(), 1);
            world.join(A, B);
            world.ask(A);
            world.cut.clear();
        },
    );
}

#[test]
fn a_barrier_reaches_old_and_new_owners() {
    check(
        |faults| faults.barrier_old_only = true,
        "D2",
        5,
        |world| {
            world.begin_move(0, &[C, D, E]);
            // All follow the joint configuration; then A and B hear of nothing any more.
            world.run(90);
            world.deaf.extend([NodeId(1), NodeId(2)]);
            world.until(|world| !world.is_joint(0));
            world.part(&[A, B], &[C, D, E]);
            world.run(500);
            world.write_one(D, 0, 500);
            world.run(500);
            assert_eq!(world.acknowledged(), 1);
            world.ask(A);
            world.cut.clear();
        },
    );
}

#[test]
fn a_seen_number_is_not_held() {
    check(
        |faults| faults.seen_is_held = true,
        "D2",
        4,
        |world| {
            world.slow_disk = Some((A, 2000));
            world.part(&[D], &[A, C]);
            world.part(&[C], &[A, B]);
            world.write_one(D, 0, 10_000);
            // A gets it from B, and has it on its slow disk; then the push arrives too.
            world.run(500);
            world.join(A, D);
            world.run(300);
            let acknowledged = world.acknowledged();
            world.cut.clear();
            world.part(&[B], &[A, C, D]);
            world.power_cut_hard(A);
            world.slow_disk = None;
            world.start(A);
            world.run(300);
            if acknowledged > 0 {
                world.ask(C);
            }
            world.cut.clear();
        },
    );
}

#[test]
fn a_restored_backup_is_noticed() {
    check(
        |faults| faults.restored_copy_ignored = true,
        "D2",
        3,
        |world| {
            let table = world.plane.now.table.clone();
            world.nodes[A].take_backup(table);
            world.write_without_c();
            world.kill(A);
            world.restore(A);
            // B is heard at A and C but does not hear A.
            let (a, b, c) = (world.nodes[A].id, world.nodes[B].id, world.nodes[C].id);
            world.cut.clear();
            world.cut.insert((a, b));
            world.cut.insert((b, c));
            world.cut.insert((c, b));
            world.start(A);
            world.run(300);
            world.ask(C);
            world.cut.clear();
        },
    );
}

#[test]
fn a_deletion_is_learnt_before_what_presupposes_it() {
    check(
        |faults| faults.deletion_not_learnt = true,
        "D3",
        3,
        |world| {
            world.write_of_every_class();
            world.without_plane(A);
            world.delete_every_class();
            world.write_one(B, 0, 500);
            world.run(300);
            world.flush(A);
            world.run(100);
        },
    );
}

#[test]
fn an_import_claims_what_its_source_applied() {
    check(
        |faults| faults.import_claims_deletions = true,
        "D3",
        3,
        |world| {
            world.write_of_every_class();
            for index in [A, B, C] {
                world.flush(index);
            }
            world.run(300);
            world.without_plane(A);
            world.without_plane(B);
            world.delete_every_class();
            world.lose_and_restart(C);
            world.run(2000);
        },
    );
}

#[test]
fn a_damaged_block_is_not_answered_from() {
    check(
        |faults| faults.damage_ignored = true,
        "D2",
        3,
        |world| {
            world.write_without_c();
            world.flush(A);
            assert!(world.nodes[A].damage_block(0));
            world.cut.clear();
            world.part(&[B], &[A, C]);
            world.ask(A);
            world.ask(C);
            world.cut.clear();
            world.notice_damage(A, &ShardSet::all(2), EVER);
            world.run(3000);
        },
    );
}

#[test]
fn a_shard_that_comes_back_begins_anew() {
    check(
        |faults| faults.drop_keeps_positions = true,
        "D2",
        4,
        |world| {
            world.write_one(A, 0, 500);
            world.run(500);
            world.move_shard(0, &[A, B, D]);
            world.run(1500);
            world.move_shard(0, &[A, B, C]);
            world.part(&[A], &[B, C]);
            world.ask(C);
            world.cut.clear();
        },
    );
}

#[test]
fn an_adoption_survives_a_crash() {
    check(
        |faults| {
            faults.adoption_not_durable = true;
            // It would hear of its row first.
            faults.unheard_owner_stores = true;
        },
        "D2",
        4,
        |world| {
            world.without_plane(C);
            world.part(&[C], &[A, B, D]);
            world.move_shard(0, &[A, B, D]);
            world.run(300);
            world.part(&[A], &[B, D]);
            world.without_plane(A);
            world.kill(A);
            world.start(A);
            // The core must not rely on what keeps a restarted node from taking items before it has caught up.
            world.nodes[A].takes_items = true;
            world.join(A, C);
            world.run(50);
            world.write_one(C, 0, 500);
            world.run(600);
            world.ask(B);
            world.cut.clear();
        },
    );
}

#[test]
fn catching_up_counts_from_the_adoption_on() {
    check(
        |faults| faults.early_catch_up = true,
        "D2",
        5,
        |world| {
            world.deaf.extend([NodeId(1), NodeId(3)]);
            world.part(&[C], &[B, D, E]);
            world.begin_move(0, &[B, D, E]);
            world.run(600);
            // A still follows the old number, as C does, and nobody asks it any more.
            world.part(&[A], &[B, D, E]);
            world.write_one(C, 0, 500);
            world.run(300);
            world.deaf.clear();
            world.without_plane(C);
            world.run(2000);
            world.ask(D);
            world.cut.clear();
        },
    );
}

#[test]
fn a_message_for_another_node_is_refused() {
    check(
        |faults| faults.envelope_unchecked = true,
        "a sound disk",
        3,
        |world| {
            world.write_one(A, 0, 500);
            world.run(300);
            world.weather.misdelivered = 300;
            world.run(1500);
            world.weather.misdelivered = 0;
            if world.coverage.of(Seen::OldCopyNoticed) > 0 {
                let why = "a sound disk is taken for an old copy".to_owned();
                world.client.broken.get_or_insert(why);
            }
        },
    );
}

#[test]
fn two_chained_movements_leave_nothing_behind() {
    check_movement(
        |faults, movement| {
            faults.join_from_one = true;
            movement.catch_up_unchecked = true;
        },
        "D2",
        5,
        |world| {
            // B and C hold it. D and E hear of A only, which does not.
            world.part(&[A, D, E], &[B, C]);
            world.write_one(B, 0, 500);
            world.run(300);
            assert_eq!(world.acknowledged(), 1);
            // After the first movement only B would have it, after the second nobody.
            for owners in [[A, B, D], [A, D, E]] {
                if !world.is_joint(0) {
                    world.begin_move(0, &owners);
                }
                world.run(1500);
            }
            world.ask(E);
            world.cut.clear();
        },
    );
}

#[test]
fn a_forgotten_number_is_not_durable_at_once() {
    check(
        |faults| faults.forgotten_is_durable = true,
        "D2",
        3,
        |world| {
            // A remembers one number of each coordinator's run.
            world.setup.settings.held_max = 1;
            world.kill(A);
            world.start(A);
            world.run(200);
            world.part(&[A], &[B, C]);
            for _ in 0..3 {
                world.write_one(B, 0, 500);
            }
            world.run(20);
            assert_eq!(world.acknowledged(), 3);
            // It gets the fourth number, and then fetches the older ones on a slow disk.
            world.join(A, B);
            world.write_one(B, 0, 500);
            world.run(10);
            world.slow_disk = Some((A, 2000));
            world.ask(A);
            world.slow_disk = None;
        },
    );
}

#[test]
fn what_a_lost_replica_stored_ends_too() {
    check(
        |faults| faults.strays_kept = true,
        "D3: NodeId(4) still has",
        4,
        |world| {
            world.begin_move(0, &[A, B, D]);
            world.write_one(A, 0, 500);
            world.until(|world| world.stores(D, 0));
            // D hears of nothing while the change is abandoned, and loses the pages with its adoption.
            world.without_plane(D);
            world.part(&[D], &[A, B, C]);
            assert!(world.plane.abandon_change(ShardId(0)));
            world.publish();
            world.run(300);
            world.kill(D);
            world.lose_last(D, |record| matches!(record, Record::Adopt { .. }));
            world.lose_last(D, |record| matches!(record, Record::Trust(_)));
            world.start(D);
            world.run(300);
        },
    );
}

#[test]
fn batches_tell_which_deletions_were_known() {
    check(
        |faults| faults.deletions_by_record_only = true,
        "D3: deleted",
        3,
        |world| {
            world.write_of_every_class();
            world.delete_every_class();
            for _ in 0..4 {
                world.write_one(A, 0, 500);
            }
            world.run(300);
            // C loses the page that says what it knew, and flushes before it hears of it again.
            world.kill(C);
            for _ in 0..3 {
                world.lose_last(C, |record| matches!(record, Record::Deletions { .. }));
            }
            world.without_plane(C);
            world.start(C);
            world.run(50);
            world.flush(C);
        },
    );
}
