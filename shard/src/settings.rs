//! Times and bounds of the replication, and the faults that tests plant.

use std::time::Duration;

/// Most windows that [`crate::Event::Windows`] may name; more are ignored.
pub const WINDOWS_MAX: usize = 16_384;

/// Times and bounds. The defaults are for production; the simulation varies them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The least time between two [`crate::Event::Tick`]s: the grain of all other times.
    pub tick: Duration,
    /// The most time between two of them. An idle node does nothing else.
    pub tick_max: Duration,
    /// Between background barriers of a pair. Keeps the gap that a query's barrier has to close small.
    pub barrier_interval: Duration,
    /// How long a barrier may take before it is given up and another may begin.
    pub barrier_timeout: Duration,
    /// How long a barrier waits for pushes in flight before it fetches.
    pub push_grace: Duration,
    /// After this long a query asks all other owners too, not only the first.
    pub hedge_after: Duration,
    /// Between two pushes of one parcel to one owner that has not answered.
    pub push_retry: Duration,
    /// Between two requests of the same thing from one peer in fetches and copies.
    pub fetch_retry: Duration,
    /// Between two proposals of the same thing, between reports, and between confirmations.
    pub repeat_interval: Duration,
    /// How long a source keeps a pinned view without hearing of the receiver.
    pub export_idle: Duration,
    /// How long requests may be under way that were stamped before their coordinator learnt of a deletion. Older ones
    /// are refused, and their clients send them again.
    pub deletion_grace: Duration,
    /// While a deletion waits for owners to confirm it, between two notes of positions that pass no parcel.
    pub positions_interval: Duration,
    /// Between two windows that are scrubbed.
    pub scrub_interval: Duration,
    /// Most bytes of parcels that wait for one peer's acknowledgement. Beyond them pushes to it are skipped,
    /// unless a majority needs it.
    pub window_bytes_max: usize,
    /// Most pushes that wait for one peer's acknowledgement.
    pub window_pushes_max: usize,
    /// A peer that was skipped gets pushes again when it lacks fewer bytes of this node's journal than this.
    pub window_reopen_bytes: u64,
    /// Most writes that are open. More are `Unavailable` at once.
    pub writes_max: usize,
    /// Most parts that wait for barriers. More are refused at once.
    pub queries_max: usize,
    /// Most parcels that an answer to a barrier lists.
    pub listed_max: usize,
    /// About how many bytes of parcels an answer to a fetch carries.
    pub fetch_bytes_max: usize,
    /// About how many bytes a chunk of a copy carries.
    pub chunk_bytes_max: usize,
    /// How fast this node fills replicas, in bytes per second.
    pub copy_bytes_per_second: u64,
    /// Most views that are pinned for copies at one time.
    pub exports_max: usize,
    /// Most request numbers that are remembered per coordinator run.
    pub held_max: usize,
    /// Most coordinator runs whose numbers are remembered.
    pub held_runs_max: usize,
    /// Most own runs that are remembered for judging positions.
    pub starts_max: usize,
    /// How many bytes of flushed journal are kept for peers that are behind.
    pub journal_bytes_max: u64,
}

impl Default for Settings {
    fn default() -> Self {
        let millis = Duration::from_millis;
        Self {
            tick: millis(5),
            tick_max: millis(250),
            barrier_interval: millis(1000),
            barrier_timeout: millis(500),
            push_grace: millis(5),
            hedge_after: millis(10),
            push_retry: millis(500),
            fetch_retry: millis(500),
            repeat_interval: millis(1000),
            export_idle: millis(30_000),
            deletion_grace: millis(30_000),
            positions_interval: millis(60_000),
            scrub_interval: millis(10_000),
            window_bytes_max: 32 << 20,
            window_pushes_max: 2048,
            window_reopen_bytes: 4 << 20,
            writes_max: 10_000,
            queries_max: 10_000,
            listed_max: 4096,
            fetch_bytes_max: 1 << 20,
            chunk_bytes_max: 1 << 20,
            copy_bytes_per_second: 64 << 20,
            exports_max: 8,
            held_max: 1 << 17,
            held_runs_max: 256,
            starts_max: 1024,
            journal_bytes_max: 1 << 30,
        }
    }
}

/// Mistakes that a test can plant, to show that the simulation and the named schedules find them. All are
/// false in production. Each undoes one rule of the protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// An owner acknowledges a push before its journal is durable.
    pub acknowledge_before_fsync: bool,
    /// An adoption is followed before it is durable.
    pub adoption_not_durable: bool,
    /// An amnesiac serves at once.
    pub amnesiac_serves: bool,
    /// An amnesiac serves when it has caught up with one Serving owner.
    pub refill_from_one: bool,
    /// A new owner serves when it has caught up with one old owner.
    pub join_from_one: bool,
    /// An amnesiac does not have its loss recorded: no number rises.
    pub amnesia_unrecorded: bool,
    /// Catching up with a Filling owner counts.
    pub filling_counts: bool,
    /// Catching up counts although it happened before the source followed the number.
    pub early_catch_up: bool,
    /// Barriers do not list imports.
    pub imports_unlisted: bool,
    /// A position in a run that the answerer does not know means the beginning of its journal.
    pub unknown_run_is_start: bool,
    /// One position per peer for all shards: a newly shared shard takes that of the others.
    pub position_per_peer: bool,
    /// A position below the floor is answered with what is left.
    pub trimmed_answers_rest: bool,
    /// Owners take pushes under a lower number than theirs.
    pub stale_push_taken: bool,
    /// Barriers are answered under whatever number the asker has.
    pub stale_barrier_answered: bool,
    /// During a joint change barriers need the old owners only.
    pub barrier_old_only: bool,
    /// A number that was seen counts as held before it is durable.
    pub seen_is_held: bool,
    /// A number below the kept range counts as durable as soon as it is journalled.
    pub forgotten_is_durable: bool,
    /// A loss is about the replicas only of which the journal still knows.
    pub strays_kept: bool,
    /// Only a record of deletions says which were known, not the batches that presuppose them.
    pub deletions_by_record_only: bool,
    /// An owner that is told of a longer journal of its own does not mind.
    pub restored_copy_ignored: bool,
    /// Batches are stored although they presuppose an unknown deletion.
    pub deletion_not_learnt: bool,
    /// Who becomes an owner again keeps the replica of its former stay.
    pub former_stay_goes_on: bool,
    /// What is too old to be taken is asked for again and again.
    pub outdated_asked_again: bool,
    /// A tenant is closed for older items when its time is over, whatever this owner still lacks.
    pub closed_by_the_clock: bool,
    /// The source of a copy that was given up keeps its view.
    pub view_left_open: bool,
    /// An owner stores items although it has not heard what was deleted before its stay began.
    pub unheard_owner_stores: bool,
    /// Positions are made durable only when there was something to fetch, or something that was held already.
    pub positions_noted_with_news: bool,
    /// Positions that pass no parcel of an owner's shards are made durable when it closes a tenant, and never again.
    pub positions_noted_at_closing: bool,
    /// Items are stored although they are older than a deletion that this owner has confirmed.
    pub closed_taken: bool,
    /// Imports claim the deletions that the receiver knows instead of those that the source applied.
    pub import_claims_deletions: bool,
    /// A damaged block changes nothing.
    pub damage_ignored: bool,
    /// A shard's replica keeps its positions when it is dropped.
    pub drop_keeps_positions: bool,
    /// An old owner drops its replicas with the first look after it sees that it will not be an owner.
    pub drop_unconfirmed: bool,
    /// Envelopes are not checked.
    pub envelope_unchecked: bool,
    /// A write needs one owner only.
    pub acknowledge_with_one: bool,
    /// A query may use a barrier that began before it.
    pub old_barrier_used: bool,
    /// A position is noted before what it covers is journalled.
    pub position_before_parcels: bool,
    /// A query does not wait until the own journal is applied.
    pub unapplied_evaluated: bool,
    /// The journal behind a view that is being copied is trimmed.
    pub pinned_trimmed: bool,
    /// Imports are skipped by everybody who has any position in the source's journal.
    pub import_skipped_always: bool,
}
