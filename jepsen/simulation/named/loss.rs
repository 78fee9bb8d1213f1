//! Stories of replicas that lost something, and of copies.

use crate::{
    coverage::Seen,
    stage::{A, B, C, D, Stage, Told},
};

/// `A` and `B` hold what `C` lacks; then `A` loses it, and hears of `C` only.
async fn lose_at_a(stage: &Stage) -> Told {
    stage.part(&[C], &[A, B]);
    stage.write_held(A).await?;
    stage.lose_data(A)?;
    stage.join_all();
    stage.part(&[B], &[A, C]);
    stage.start(A).await
}

pub(super) async fn a_filling_replica_does_not_answer(stage: &Stage) -> Told {
    lose_at_a(stage).await?;
    stage.ask(&[A, C], 3_000).await
}

pub(super) async fn a_loss_is_filled_from_every_majority(stage: &Stage) -> Told {
    lose_at_a(stage).await?;
    stage.ask(&[C, A], 3_000).await
}

/// What was acknowledged is gone with two disks. That it comes back is not promised; that nobody is silent about it is.
pub(super) async fn two_losses_do_not_fill_each_other(stage: &Stage) -> Told {
    stage.part(&[C], &[A, B]);
    stage.write_held(A).await?;
    stage.lose_data(A)?;
    stage.lose_data(B)?;
    stage.join_all();
    stage.start(A).await?;
    stage.start(B).await?;
    stage.ask(&[A, B, C], 5_000).await
}

/// `A` alone holds an item, loses it, and is filled by two who never had it. Then `B` holds it too.
pub(super) async fn what_was_acknowledged_before_a_loss_does_not_count(stage: &Stage) -> Told {
    stage.part(&[A, D], &[B, C]);
    stage.begin_write(D, 30_000)?;
    stage.run(200).await;
    stage.lose_data(A)?;
    stage.join_all();
    stage.part(&[D], &[A, B, C]);
    stage.start(A).await?;
    stage.until("A serves", |stage| stage.serves(A)).await?;
    stage.part(&[B], &[A, C]);
    stage.join(B, D);
    stage.run(1_500).await;
    stage.part(&[B], &[D]);
    stage.ask(&[C, A], 2_000).await
}

/// `A` comes back as it was before it acknowledged what `C` lacks; nothing of `A` reaches `B`.
pub(super) async fn an_old_copy_is_noticed(stage: &Stage) -> Told {
    stage.write_held(A).await?;
    stage.run(500).await;
    let copy = stage.copy_disk(A);
    stage.write_held(B).await?;
    // So long that all others have noted more of A's journal than the copy has.
    stage.run(3_000).await;
    stage.part(&[C], &[A, B]);
    stage.write_held(A).await?;
    stage.kill(A);
    stage.restore_disk(A, copy);
    stage.join_all();
    stage.part(&[B], &[C]);
    stage.part_one_way(A, B);
    // It may end as soon as it is up.
    stage.begin_start(A);
    stage.run(300).await;
    stage.ask(&[C, A], 2_000).await
}

/// While `A` copies from `B`, slowly, `B` and `C` take what `A` does not hear of, and write it into blocks.
pub(super) async fn the_journal_behind_a_pinned_copy_stays(stage: &Stage) -> Told {
    for _ in 0..3 {
        stage.write_held(A).await?;
        stage.run(100).await;
    }
    let trimmed = |stage: &Stage| [B, C].iter().all(|role| stage.journal_floor(*role) > 0);
    stage.until("journals are trimmed", trimmed).await?;
    stage.lose_data(A)?;
    stage.part(&[C], &[A]);
    stage.start(A).await?;
    let pinned = |stage: &Stage| stage.world.coverage().of(Seen::ExportOpened) > 0;
    stage.until("a view is pinned", pinned).await?;
    // B hears of it from C; A has no position in B's journal before the copy has ended.
    stage.write_held(C).await?;
    stage.run(20_000).await;
    stage.join_all();
    stage.until("A serves", |stage| stage.serves(A)).await?;
    stage.ask(&[A], 2_000).await
}

/// `C` is away until the journals do not have what it lacks any more, and then hears of `B` only.
pub(super) async fn a_trimmed_journal_is_copied(stage: &Stage) -> Told {
    stage.write_held(A).await?;
    stage.run(2_000).await;
    stage.part(&[C], &[A, B]);
    stage.write_held(A).await?;
    stage.run(8_000).await;
    stage.write_held(A).await?;
    stage.run(8_000).await;
    stage.join(B, C);
    stage.ask(&[C], 3_000).await
}

/// A block of `A`'s cannot be read.
pub(super) async fn a_damaged_block_is_not_answered_from(stage: &Stage) -> Told {
    stage.part(&[C], &[A, B]);
    stage.write_held(A).await?;
    stage.run(8_000).await;
    stage.damage_block(A)?;
    stage.join_all();
    stage.part(&[B], &[A, C]);
    stage.ask(&[A, C], 8_000).await
}
