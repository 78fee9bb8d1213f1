//! Stories of shards that change their owners.

use crate::stage::{A, B, C, D, E, Stage, Told};

/// `A` hears of nothing while the shard moves away from it and from `B`; then it writes through `B`.
pub(super) async fn a_coordinator_behind_is_refused(stage: &Stage) -> Told {
    stage.write_held(A).await?;
    stage.deafen(A);
    stage.part(&[A], &[B, C, D, E]);
    stage.move_to(&[B, C, D]).await?;
    stage.move_to(&[C, D, E]).await?;
    stage.run(1_000).await;
    stage.join(A, B);
    // With the mistake it is acknowledged, by two who own nothing.
    stage.write(A, 1_500).await?;
    stage.ask(&[C, D], 1_500).await
}

/// `A` and `B` hold what `C` lacks. The shard is to move from `A` to `D`, which gets nothing; then `B` is lost for good.
pub(super) async fn an_old_owner_stays_until_the_new_are_whole(stage: &Stage) -> Told {
    stage.part(&[C, D], &[A, B]);
    stage.write_held(A).await?;
    // A journal has what a dropped replica had until it is trimmed.
    let trimmed = |stage: &Stage| stage.journal_floor(A) > 0;
    stage.until("A's journal is trimmed", trimmed).await?;
    stage.run(6_000).await;
    // While it is an owner it would get everything back from B.
    stage.part(&[A], &[B]);
    stage.begin_move(&[B, C, D]).await?;
    stage.run(4_000).await;
    stage.lose_disk(B);
    stage.join_all();
    stage.start(B).await?;
    stage.ask(&[A, C, D], 2_000).await
}

/// `A` and `B` know of the move as it is under way, and not that it ended; then the new owners take a write.
pub(super) async fn a_barrier_reaches_old_and_new_owners(stage: &Stage) -> Told {
    stage.write_held(A).await?;
    stage.begin_move(&[C, D, E]).await?;
    let both_follow = |stage: &Stage| {
        [A, B].iter().all(|role| {
            let entry = stage.entry_at(*role);
            entry.is_some_and(|entry| entry.configuration.is_joint())
        })
    };
    stage.until("both follow the change", both_follow).await?;
    stage.run(30).await;
    for role in [A, B] {
        stage.deafen(role);
    }
    stage
        .until("the move has ended", |stage| !stage.is_joint())
        .await?;
    stage.part(&[A, B], &[C, D, E]);
    stage.run(300).await;
    stage.write_held(D).await?;
    stage.ask(&[A, B], 1_500).await
}

/// `B` and `C` hold what `A`, `D` and `E` lack. After the first move only `B` would have it, after the second nobody.
pub(super) async fn two_moves_leave_nothing_behind(stage: &Stage) -> Told {
    stage.part(&[A, D, E], &[B, C]);
    stage.write_held(B).await?;
    for owners in [[A, B, D], [A, D, E]] {
        if !stage.is_joint() {
            stage.begin_move(&owners).await?;
        }
        stage.run(4_000).await;
    }
    stage.ask(&[E, D], 1_500).await
}
