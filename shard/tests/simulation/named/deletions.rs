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
            // C hears of nothing while it is no owner: not that it is none, and not what is deleted.
            world.without_plane(C);
            world.part(&[C], &[A, B, D]);
            for shard in [0, 1] {
                world.move_shard(shard, &[A, B, D]);
            }
            world.delete_every_class();
            world.forget(&[A, B, D]);
            world.begin_move(0, &[A, B, C]);
            world.cut.clear();
            world.without_plane.clear();
            world.publish();
            world.until(|world| !world.is_joint(0));
        },
    );
}
