//! Named schedules about deletions that are forgotten.

use super::*;

impl World {
    /// All who own something apply and confirm what was deleted, until the plane forgets it.
    fn forget(&mut self, owners: &[usize]) {
        self.run(700);
        for index in owners {
            self.flush(*index);
        }
        self.until(|world| world.coverage.of(Seen::DeletionForgotten) > 0);
    }

    /// The story has gone wrong without breaking a promise.
    fn fail(&mut self, why: &str) {
        self.client.broken.get_or_insert(why.to_owned());
    }

    /// C hears of nothing while it is no owner: not that it is none, and not what is deleted.
    fn leave_and_come_back_unheard(&mut self) {
        self.without_plane(C);
        self.part(&[C], &[A, B, D]);
        for shard in [0, 1] {
            self.move_shard(shard, &[A, B, D]);
        }
        self.delete_every_class();
        self.forget(&[A, B, D]);
        self.begin_move(0, &[A, B, C]);
        self.cut.clear();
        self.without_plane.clear();
        self.publish();
        self.until(|world| !world.is_joint(0));
    }

    fn copies(&self, index: usize) -> u64 {
        let core = self.nodes[index].core.as_ref();
        core.map_or(0, |core| core.status().copies)
    }
}

#[test]
fn nothing_older_comes_after_a_deletion_is_forgotten() {
    check(
        |faults| faults.closed_taken = true,
        "D3: deleted",
        4,
        |world| {
            // D owns nothing, so nobody waits for it, and it does not hear of the deletions.
            world.run(300);
            world.without_plane(D);
            world.delete_every_class();
            world.forget(&[A, B, C]);
            for _ in 0..4 {
                world.write_one(D, 0, 500);
            }
            world.run(700);
        },
    );
}

#[test]
fn a_new_stay_begins_with_nothing() {
    check(
        |faults| faults.former_stay_goes_on = true,
        "D3",
        4,
        |world| {
            world.write_of_every_class();
            world.flush(C);
            world.leave_and_come_back_unheard();
        },
    );
}

#[test]
fn a_new_stay_of_a_replica_that_was_repaired_begins_with_nothing() {
    check(
        |faults| faults.former_stay_goes_on = true,
        "D3",
        4,
        |world| {
            world.write_of_every_class();
            world.flush(C);
            // The loss is recorded, under a lineage of the replica's own, and what was lost is copied.
            assert!(world.nodes[C].damage_block(0));
            world.notice_damage(C, &ShardSet::all(2), EVER);
            world.run(3000);
            world.flush(C);
            world.leave_and_come_back_unheard();
        },
    );
}

#[test]
fn a_backlog_of_outdated_parcels_does_not_stall_the_others() {
    let prepare = |setup: &mut Setup| {
        setup.nodes = 4;
        // Three parcels come with an answer.
        setup.settings.fetch_bytes_max = 30;
    };
    check_setup(
        prepare,
        |faults, _| faults.outdated_asked_again = true,
        "the pair stalls",
        |world| {
            world.without_plane(C);
            world.without_plane(D);
            world.delete_every_class();
            world.run(1000);
            // A and B take nothing older any more, and C takes much of it.
            world.part(&[C, D], &[A, B]);
            for _ in 0..40 {
                world.write_one(D, 0, 100);
            }
            world.run(200);
            let position = |world: &World| {
                let core = world.nodes[A].core.as_ref();
                core.and_then(|core| core.position_at(NodeId(3), ShardId(1)))
            };
            let before = position(world);
            world.join(A, C);
            world.run(500);
            if position(world) == before {
                world.fail("the pair stalls in a shard of which nothing is outdated");
            }
        },
    );
}

#[test]
fn what_was_missed_before_a_deletion_is_fetched_not_copied() {
    check(
        |faults| faults.closed_by_the_clock = true,
        "all is copied",
        3,
        |world| {
            // C hears of the deletions, and not of the items.
            world.part(&[C], &[A, B]);
            world.write_of_every_class();
            world.delete_every_class();
            world.run(1000);
            world.cut.clear();
            world.run(1000);
            if world.copies(C) > 0 {
                world.fail("all is copied because of some parcels");
            }
        },
    );
}

#[test]
fn a_copy_that_is_given_up_leaves_no_view_open() {
    check(
        |faults| faults.view_left_open = true,
        "a view is open",
        4,
        |world| {
            for _ in 0..5 {
                world.write_of_every_class();
            }
            // What is flushed is not in the journal any more, so D has to copy.
            for index in [A, B, C] {
                world.flush(index);
            }
            world.run(300);
            world.slow_disk = Some((D, 100));
            let views = |world: &World| world.nodes.iter().map(|node| node.exports.len()).sum();
            world.begin_move(0, &[A, B, D]);
            world.until(|world| {
                let open: usize = views(world);
                open > 0
            });
            assert!(world.plane.abandon_change(ShardId(0)));
            world.publish();
            world.run(600);
            let open: usize = views(world);
            if open > 0 {
                world.fail("a view is open that nobody reads");
            }
        },
    );
}

#[test]
fn a_new_owner_stores_nothing_before_it_has_heard_what_is_forgotten() {
    check(
        |faults| faults.unheard_owner_stores = true,
        "D3",
        4,
        |world| {
            world.without_plane(D);
            world.delete_every_class();
            world.forget(&[A, B, C]);
            world.begin_move(0, &[A, B, D]);
            world.run(300);
            // It learns from its peers that it is an owner, and from nobody what was deleted.
            for _ in 0..6 {
                world.write_one(D, 0, 500);
            }
            world.run(700);
        },
    );
}

#[test]
fn a_deletion_is_forgotten_on_data_at_rest() {
    check_setup(
        |setup| setup.settings.journal_bytes_max = 1 << 20,
        |faults, _| faults.positions_noted_with_news = true,
        "the deletion stays",
        |world| {
            world.write_of_every_class();
            world.run(500);
            // What it has noted of the others' journals is in its own, and it has not said so in this run.
            world.kill(B);
            world.start(B);
            world.run(500);
            world.delete_every_class();
            world.run(1500);
            for index in [A, B, C] {
                world.flush(index);
            }
            world.run(1000);
            if world.coverage.of(Seen::DeletionForgotten) == 0 {
                world.fail("the deletion stays, though everybody has applied it");
            }
        },
    );
}

#[test]
fn a_parcel_of_other_shards_does_not_keep_a_deletion() {
    let prepare = |setup: &mut Setup| {
        setup.nodes = 4;
        setup.settings.journal_bytes_max = 1 << 20;
    };
    check_setup(
        prepare,
        |faults, _| faults.positions_noted_at_closing = true,
        "the deletion stays",
        |world| {
            // Shard 0 is C's, shard 1 is D's; A and B own both.
            world.move_shard(1, &[A, B, D]);
            world.run(500);
            // A does not hear of the deletions while the others close, and journals items of shard 1 that are older.
            world.without_plane(A);
            world.delete_every_class();
            world.run(1500);
            for _ in 0..12 {
                world.write_one(A, 1, 300);
            }
            world.run(1000);
            world.without_plane.clear();
            world.publish();
            for _ in 0..4 {
                world.run(1500);
                for index in [A, B, C, D] {
                    world.flush(index);
                }
            }
            world.run(1000);
            if world.coverage.of(Seen::DeletionForgotten) == 0 {
                world.fail("the deletion stays, though everybody has applied it");
            }
        },
    );
}
