//! What can be asked of the metadata plane, and what it answers. All of this is data: it goes
//! through the Raft log and is applied by every node, so a change to one of these types is a change
//! of the format (docs/formats/raft.md): new variants go to the end, existing ones never change.

use super::{Addresses, MovementOutcome, Refusal};
use serde::{Deserialize, Serialize};
use trefoil_model::{
    ClusterId, ConfigurationNumber, DeletionVersion, Incarnation, LineageId, Millis, NodeId,
    NodeName, OwnerSet, ShardId, ShardSet, Signal, TenantId, TimeRange, Zone,
};

/// A command as it stands in the Raft log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    /// Who proposes: drawn at random by the proposer, which has one proposal in flight at a time.
    pub client: u128,
    /// The proposer's running number, from 1. A retry carries the same number and gets the same
    /// reply.
    pub serial: u64,
    /// The leader's monotonic clock when it took the proposal, in milliseconds since an arbitrary
    /// instant. Only differences inside one term mean anything; see `LeaderClock`.
    pub leader_elapsed_ms: u64,
    /// What is asked.
    pub command: Command,
}

/// What a member says of itself when it joins or starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberDescription {
    /// Its name.
    pub name: NodeName,
    /// Its zone; empty when none was given.
    pub zone: Zone,
    /// Its share of the data relative to the others; 100 unless an operator says otherwise, never
    /// 0.
    pub weight: u32,
    /// Where it listens, as far as it knows. Gossip knows better after a change of address.
    pub addresses: Addresses,
    /// The version of its program, for people.
    pub version: String,
    /// The highest format level that it reads and writes.
    pub format_level_max: u32,
    /// The lineage of its data directory.
    pub lineage: LineageId,
}

/// One shard's part of [`Command::SetConfigurations`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigurationChange {
    /// The shard.
    pub shard: ShardId,
    /// The number of the configuration that is replaced. The new one has the next number.
    pub expected: ConfigurationNumber,
    /// The owners before the change.
    pub old: OwnerSet,
    /// The owners after the change; equal to `old` when the change ends.
    pub new: OwnerSet,
}

/// What must hold for [`Command::Write`] to change anything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Condition {
    /// The key has no value.
    Absent {
        /// The key.
        key: String,
    },
    /// The key has a value of exactly this version.
    Version {
        /// The key.
        key: String,
        /// The version that a reader saw.
        version: u64,
    },
    /// The lease is held under this fencing number.
    Lease {
        /// The name of the lease.
        name: String,
        /// The number that its holder was given.
        fencing: u64,
    },
}

/// One change of [`Command::Write`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Sets the value of a key.
    Put {
        /// The key; by convention `kind/tenant/name`.
        key: String,
        /// The value; its meaning is the writer's.
        value: Vec<u8>,
    },
    /// Removes a key; nothing happens when it has no value.
    Delete {
        /// The key.
        key: String,
    },
}

/// A change of the metadata. Each is applied completely or refused without effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Lets the leader's time pass; changes nothing else.
    Tick,
    /// Names the cluster; the first command of its life. Repeating it with the same id is harmless.
    BeginCluster {
        /// The id on which the founders agreed.
        cluster: ClusterId,
    },
    /// Raises the cluster's format level. Refused unless every member can read it.
    RaiseFormatLevel {
        /// The new level; a lower one than the present one changes nothing.
        level: u32,
    },
    /// Adds a member, or brings its description up to date. A removed one is refused.
    AddMember {
        /// The node.
        node: NodeId,
        /// What it says of itself.
        description: MemberDescription,
    },
    /// Marks a member so that its shards are moved away, or takes the mark back.
    SetDraining {
        /// The member.
        node: NodeId,
        /// Whether it is to be emptied.
        draining: bool,
    },
    /// Sets the weight that an operator chose for a member.
    SetWeight {
        /// The member.
        node: NodeId,
        /// Its new weight, at least 1.
        weight: u32,
    },
    /// Removes a member for good. Refused while it owns a shard.
    RemoveMember {
        /// The member.
        node: NodeId,
    },
    /// Makes the placement table, once. All replicas in it are born serving.
    CreatePlacement {
        /// The owners of shard `i` at position `i`; the length is a power of two.
        owners: Vec<OwnerSet>,
    },
    /// Replaces configurations of shards: all of them, or none.
    SetConfigurations {
        /// At most one change per shard.
        changes: Vec<ConfigurationChange>,
    },
    /// Records that a replica may lack what it acknowledged. Gives its shards the next number with
    /// the same owners, under which its acknowledgements count again. Repeating it with the same
    /// lineage is harmless.
    RecordAmnesia {
        /// The owner.
        node: NodeId,
        /// Its shards that are affected; none: all that it owns, and the member's lineage changes
        /// too.
        shards: Option<ShardSet>,
        /// The lineage that begins now.
        lineage: LineageId,
    },
    /// Records that shards begin to move, for people to see.
    BeginMovement {
        /// Why: `join`, `drain`, `replace` or an operator's words.
        reason: String,
        /// The shards that move together.
        shards: ShardSet,
        /// The nodes that become owners, ascending.
        incoming: Vec<NodeId>,
        /// The nodes that stop being owners, ascending.
        outgoing: Vec<NodeId>,
        /// When, by the proposer's wall clock.
        at: Millis,
    },
    /// Records how a movement ended.
    FinishMovement {
        /// The movement's number.
        movement: u64,
        /// How it ended.
        outcome: MovementOutcome,
        /// When, by the proposer's wall clock.
        at: Millis,
    },
    /// Creates a tenant, or finds the one that has the name.
    CreateTenant {
        /// The name that clients send.
        name: String,
    },
    /// Replaces a tenant's limits.
    SetLimits {
        /// The tenant.
        tenant: TenantId,
        /// The limits as JSON, opaque here; none: the defaults.
        limits: Option<String>,
    },
    /// Advances a retention cut-off. One that is not newer than the present one changes nothing.
    AdvanceRetention {
        /// The tenant.
        tenant: TenantId,
        /// The signal.
        signal: Signal,
        /// What it is about; empty: everything of the signal.
        selector: String,
        /// Items before this instant are gone.
        before: Millis,
    },
    /// Deletes items. Gets the tenant's next deletion version.
    CreateDeletion {
        /// The tenant.
        tenant: TenantId,
        /// The signal.
        signal: Signal,
        /// Which series, streams or traces.
        selector: String,
        /// Which times.
        range: TimeRange,
    },
    /// Says that an owner has applied all deletions of a tenant up to a version to everything it
    /// stores.
    ConfirmDeletions {
        /// The owner.
        node: NodeId,
        /// The tenant.
        tenant: TenantId,
        /// The newest version that it has applied; all older ones are applied too.
        up_to: DeletionVersion,
    },
    /// Changes keys of the key/value table if all conditions hold.
    Write {
        /// What must hold.
        conditions: Vec<Condition>,
        /// What happens then, in order.
        changes: Vec<Change>,
    },
    /// Takes a lease that nobody holds, or renews one's own.
    AcquireLease {
        /// The name of the lease.
        name: String,
        /// Who asks.
        holder: NodeId,
        /// Which run of it; a restarted node is another holder.
        incarnation: Incarnation,
        /// For how long. The holder counts from before it asked, and only to 0.8 of it.
        term_ms: u64,
    },
    /// Gives a lease back. Nothing happens when it is not held under this number.
    ReleaseLease {
        /// The name of the lease.
        name: String,
        /// The number under which it was held.
        fencing: u64,
    },
    /// Replaces a tenant's limits if they are as they were read. Proposed from format level 3 on.
    ChangeLimits {
        /// The tenant.
        tenant: TenantId,
        /// What a reader saw.
        expected: Option<String>,
        /// The limits as JSON, opaque here; none: the defaults.
        limits: Option<String>,
    },
}

/// What applying a command answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// It is done, or there was nothing to do.
    Done,
    /// The tenant's id.
    Tenant(TenantId),
    /// The version of the new deletion.
    Deletion(DeletionVersion),
    /// The number of the tenant's retention cut-offs.
    Retention(u64),
    /// The version of everything that the write put.
    Written {
        /// Later writes have higher versions; a version is never used again, also after a deletion.
        version: u64,
    },
    /// The lease is held.
    Lease {
        /// Every effect of the lease carries this number; later holders have higher ones.
        fencing: u64,
    },
    /// The number of the new movement.
    Movement(u64),
    /// Nothing changed.
    Refused(Refusal),
}
