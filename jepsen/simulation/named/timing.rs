//! Stories in which something is believed a moment too early.

use crate::{
    checks, clients,
    stage::{A, B, C, Stage, Told},
};
use std::{collections::BTreeMap, time::Duration};
use trefoil_store_pages::CrashLoss;

/// How often a story tries to meet its moment.
const TRIES: usize = 40;

/// `C` hears from `A` what it lacks and does not get it before it is killed. Then it hears of `A` only.
pub(super) async fn a_position_follows_what_it_covers(stage: &Stage) -> Told {
    stage.write_held(A).await?;
    stage.run(2_000).await;
    stage.part(&[C], &[A, B]);
    stage.write_held(A).await?;
    let before = stage.position_in_journal_of(C, A);
    stage.join(A, C);
    // A barrier finds out what is lacking, and waits for pushes in flight before it fetches.
    stage.run(1_300).await;
    stage.part(&[C], &[A]);
    let after = stage.position_in_journal_of(C, A);
    stage.world.tell(format_args!(
        "C's position went from {before:?} to {after:?}"
    ));
    stage.run(2_500).await;
    stage.kill(C);
    stage.start(C).await?;
    stage.join(A, C);
    stage.ask(&[C], 1_000).await
}

/// `C` asks `B` what it lacks, and while the answer is on its way `A` and `B` acknowledge a write.
pub(super) async fn a_barrier_begins_after_its_query(stage: &Stage) -> Told {
    stage.part(&[C], &[A]);
    stage.slow_down(B, C, Duration::from_millis(300));
    for _ in 0..TRIES {
        let process = stage.process(C)?;
        let earlier = clients::query_directly(&process, clients::EVER);
        let write = async {
            stage.run(50).await;
            stage.write_held(A).await?;
            stage.ask(&[C], 1).await
        };
        let ((), written) = tokio::join!(earlier, write);
        written?;
        stage.run(400).await;
    }
    Ok(())
}

/// `C` has items in its journal that it has not applied when it is asked.
pub(super) async fn what_is_held_is_applied_before_an_answer(stage: &Stage) -> Told {
    for _ in 0..TRIES {
        stage.write_held(A).await?;
        stage.ask(&[A, B, C], 1).await?;
    }
    Ok(())
}

/// The power goes as soon as a register is written.
pub(super) async fn a_decision_is_durable_when_it_is_told(stage: &Stage) -> Told {
    let world = &stage.world;
    let mut known = BTreeMap::new();
    for _ in 0..5 {
        clients::read_register(&stage.process(A)?, 0, &mut known).await?;
        clients::write_register(&stage.process(A)?, 0, &mut known).await?;
        for index in world.machines() {
            world.crash(index, CrashLoss::Everything);
        }
        for role in [A, B, C] {
            stage.start(role).await?;
        }
        let led = |stage: &Stage| checks::leader(&stage.world).is_some();
        stage.until("somebody leads", led).await?;
        clients::read_register(&stage.process(B)?, 0, &mut known).await?;
    }
    Ok(())
}

/// The power of `B` goes while it writes a group of records, until a page is torn.
pub(super) async fn a_torn_page_is_cut_off(stage: &Stage) -> Told {
    for _ in 0..TRIES {
        for _ in 0..8 {
            stage.begin_write(A, 2_000)?;
        }
        stage.run(8).await;
        stage.tear_commit(B);
        stage.start(B).await?;
    }
    stage.until("B serves", |stage| stage.serves(B)).await?;
    stage.ask(&[B, A], 500).await
}
