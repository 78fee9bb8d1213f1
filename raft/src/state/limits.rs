//! Bounds of the state machine. Applying a command checks them, so all versions of the program that
//! share a format level must agree on them: changing one is a change of the format level.

/// Most members that were ever added, removed ones included. Beyond it `AddMember` is refused.
pub const MEMBERS_MAX: usize = 4096;
/// Most rows of the placement table. Beyond it `CreatePlacement` is refused.
pub const SHARDS_MAX: usize = 16_384;
/// Most owners of one shard in one owner set.
pub const OWNERS_MAX: usize = 7;
/// Most tenants, for the whole life of a cluster, because their ids are never used again.
pub const TENANTS_MAX: usize = 1_000_000;
/// Most retention cut-offs of one tenant (one per signal and selector).
pub const CUT_OFFS_MAX: usize = 256;
/// Most deletions of one tenant that wait for confirmations. Beyond it `CreateDeletion` is refused
/// until the owners have confirmed older ones.
pub const DELETIONS_PENDING_MAX: usize = 1024;
/// Most keys of the key/value table.
pub const VALUES_MAX: usize = 1_000_000;
/// Most leases, held and expired; expired ones give way to new ones.
pub const LEASES_MAX: usize = 100_000;
/// Longest term of a lease: a day, in milliseconds.
pub const LEASE_TERM_MS_MAX: u64 = 86_400_000;
/// Most facts about movements that are kept; the oldest finished one gives way.
pub const MOVEMENTS_MAX: usize = 256;
/// Most proposers whose newest reply is remembered. The one that was silent for longest is
/// forgotten first; a retry of its last proposal would then be applied again. Retries end with the
/// proposal's deadline (seconds), in which this many other proposers would have to appear.
pub const CLIENTS_MAX: usize = 8192;
/// Longest name of a node, zone, tenant, lease or address, in bytes.
pub const NAME_BYTES_MAX: usize = 256;
/// Longest key of the key/value table, in bytes.
pub const KEY_BYTES_MAX: usize = 1024;
/// Longest selector of a deletion or retention cut-off, in bytes.
pub const SELECTOR_BYTES_MAX: usize = 16 * 1024;
/// Longest encoded proposal, in bytes. A larger one is refused before it reaches the Raft log.
pub const PROPOSAL_BYTES_MAX: usize = 4 << 20;
