//! Named schedules: each is the shortest story in which one rule matters, told by whole nodes. Each is told with the
//! rule's bug planted, when a promise must be broken, and without, when none may be.
//!
//! The random schedules find most planted bugs too; these are for those that take several steps in the right order, and
//! for seeds that found something in the product.

mod loss;
mod movement;
mod timing;

use crate::{
    bugs::Bug,
    checks,
    dice::Dice,
    schedule,
    stage::{Stage, Told},
    world::{Setup, World},
};
use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

type Telling<'a> = Pin<Box<dyn Future<Output = Told> + Send + 'a>>;

/// A named schedule.
pub(crate) struct Story {
    pub(crate) name: &'static str,
    /// What breaks a promise in it.
    pub(crate) bug: Bug,
    nodes: usize,
    settings: fn(&mut Setup),
    /// Whether everything must be whole afterwards. Not where more was lost than is promised to come back.
    comes_to_rest: bool,
    tell: for<'a> fn(&'a Stage) -> Telling<'a>,
}

macro_rules! stories {
    ($($module:ident::$name:ident: $bug:ident, $nodes:literal nodes $(, set $settings:expr)? $(, rests $rests:literal)?;)*) => {
        /// All named schedules.
        pub(crate) const STORIES: &[Story] = &[$(Story {
            name: stringify!($name),
            bug: Bug::$bug,
            nodes: $nodes,
            settings: stories!(@settings $($settings)?),
            comes_to_rest: stories!(@rests $($rests)?),
            tell: |stage| Box::pin($module::$name(stage)),
        }),*];
    };
    (@settings) => { |_| () };
    (@settings $settings:expr) => { $settings };
    (@rests) => { true };
    (@rests $rests:literal) => { $rests };
}

stories!(
    loss::a_filling_replica_does_not_answer: EvaluateWhileFilling, 3 nodes;
    loss::a_loss_is_filled_from_every_majority: RefillFromOne, 3 nodes;
    loss::two_losses_do_not_fill_each_other: CountFillingOwner, 3 nodes, rests false;
    loss::what_was_acknowledged_before_a_loss_does_not_count: AmnesiaUnrecorded, 4 nodes;
    loss::an_old_copy_is_noticed: TrustRestoredCopy, 3 nodes;
    loss::the_journal_behind_a_pinned_copy_stays: TrimPinnedCopy, 3 nodes, set |setup| {
        setup.replication.journal_bytes_max = 0;
        setup.replication.copy_bytes_per_second = 20;
    };
    loss::a_trimmed_journal_is_copied: TrimmedAnswersRest, 3 nodes, set |setup| {
        setup.replication.journal_bytes_max = 0;
    };
    loss::a_damaged_block_is_not_answered_from: DamageIgnored, 3 nodes;
    movement::a_coordinator_behind_is_refused: SkipConfigurationCheck, 5 nodes;
    movement::an_old_owner_stays_until_the_new_are_whole: DropOldOwnerByTimer, 4 nodes, set |setup| {
        setup.replication.journal_bytes_max = 0;
    };
    movement::a_barrier_reaches_old_and_new_owners: BarrierOldOnly, 5 nodes;
    movement::two_moves_leave_nothing_behind: FinishWithoutCatchUp, 5 nodes;
    timing::a_position_follows_what_it_covers: PositionBeforeParcels, 3 nodes, set |setup| {
        setup.replication.push_grace = Duration::from_millis(450);
    };
    timing::a_barrier_begins_after_its_query: OldBarrierUsed, 3 nodes;
    timing::what_is_held_is_applied_before_an_answer: UnappliedEvaluated, 3 nodes, set |setup| setup.slow_disks = true;
    timing::a_decision_is_durable_when_it_is_told: RaftAcknowledgesBeforeFsync, 3 nodes, set |setup| setup.slow_disks = true;
    timing::a_torn_page_is_cut_off: ApplyTornPage, 3 nodes, set |setup| setup.slow_disks = true;
);

/// The story of this name.
pub(crate) fn story(name: &str) -> Option<&'static Story> {
    STORIES.iter().find(|story| story.name == name)
}

impl Story {
    fn setup(&self, bug: Option<Bug>) -> Setup {
        let replication = trefoil_shard::Settings {
            // Nothing is mended behind the story's back.
            scrub_interval: Duration::from_secs(3600),
            ..trefoil_shard::Settings::default()
        };
        let mut setup = Setup {
            founders: 3,
            machines: self.nodes,
            expect: 3,
            shards: 1,
            replication,
            snapshot_entries: 4096,
            slow_disks: false,
            bug,
        };
        (self.settings)(&mut setup);
        setup
    }

    /// Tells the story in a world of its own.
    pub(crate) async fn run(
        &self,
        seed: u64,
        bug: Option<Bug>,
        keeps_all: bool,
    ) -> (Arc<World>, Told) {
        let world = World::new(self.setup(bug), Dice::new(seed), keeps_all);
        let told = self.play(&world).await;
        (world, told)
    }

    async fn play(&self, world: &Arc<World>) -> Told {
        schedule::form_in_peace(world).await?;
        let stage = Stage::new(world).await?;
        world.tell(format_args!("the story begins"));
        (self.tell)(&stage).await?;
        world.tell(format_args!("the story has been told"));
        stage.join_all();
        if !self.comes_to_rest {
            return world.first_broken().map_or(Ok(()), Err);
        }
        for index in world.machines() {
            world.start(index);
        }
        checks::at_rest(world).await
    }
}
