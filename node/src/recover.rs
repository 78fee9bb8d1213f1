//! `trefoil cluster recover`: after a majority of the voters was lost for good, one stopped node becomes
//! the only voter of its cluster again, and the cluster goes on without the nodes that are gone. Explicit, says
//! what may be lost, and is recorded in the metadata. `docs/lost-majority.md` says how to use it.

use crate::{
    cli::{cluster::RecoverArgs, print},
    clock,
    data_dir::DataDir,
};
use anyhow::{Context, bail};
use std::sync::Arc;
use trefoil_model::NodeId;
use trefoil_raft::recovery::{self, RecoveryReport, Survivors};
use trefoil_store_pages::{Disk, RealDisk};

/// Says what would be lost; does it when `--yes` was given.
pub(crate) async fn run(args: &RecoverArgs) -> anyhow::Result<()> {
    if !args.data_dir.join("meta").is_dir() {
        bail!("{} is no data directory of a node", args.data_dir.display());
    }
    // The lock proves that the node is stopped.
    let directory = DataDir::open(&args.data_dir)?;
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let meta = directory.path().join("meta");
    if args.forget_group {
        if args.yes {
            recovery::forget_group(&disk, &meta).context("forget the node's vote and log")?;
            return print("The node has forgotten its vote and log; it comes back as a learner.\n");
        }
        return print(
            "This takes the node's vote and Raft log away; it comes back as a learner of the\n\
             recovered cluster. Its data is not touched. Do it with --yes.\n",
        );
    }
    let survivors = Survivors {
        others: args.survivor.clone(),
        at: clock::wall(),
    };
    let report = recovery::inspect(disk.clone(), &meta, &survivors)
        .await
        .context("read the metadata")?;
    print(&describe(&report))?;
    if !args.yes {
        return print("\nNothing was changed. Do it with --yes.\n");
    }
    recovery::become_only_voter(disk, &meta, &survivors)
        .await
        .context("recover")?;
    print("\nDone. Start the node.\n")
}

/// What the recovery goes on with, and what is lost, for people.
fn describe(report: &RecoveryReport) -> String {
    let name = |node: &NodeId| match report.names.get(node) {
        Some(name) => name.clone(),
        None => node.to_string(),
    };
    let list = |nodes: &[NodeId]| match nodes {
        [] => "nobody".to_owned(),
        _ => {
            let mut names: Vec<String> = nodes.iter().map(name).collect();
            names.sort_unstable();
            names.join(", ")
        }
    };
    let loss = report.loss;
    let mut text = format!(
        "Node      {} ({})\nCluster   {}\nVoters    {}\nGiven up  {}\nLast      index {}, term {}\n",
        name(&report.node),
        report.node,
        report.cluster,
        list(&report.voters_before),
        list(&report.lost),
        report.last.index,
        report.last.term
    );
    text += &format!(
        "\nThis node becomes the only voter. Of what was decided about the cluster, lost is what the other voters\n\
         committed behind the last entry; {} of its own newest entries are not known to be committed and count\n\
         from now on.\n",
        report.uncommitted_entries
    );
    text += &format!(
        "\n{} of {} shards have lost a majority of their owners. They go on with what one surviving owner holds;\n\
         lost is what only the given up nodes had acknowledged. {} of them have no owner left: all their data is\n\
         lost.\n",
        loss.without_majority, loss.shards, loss.without_owner
    );
    text += "\nA node that is given up must never start again with its data directory. One whose data is there is\n\
             named with --survivor. Recover the survivor with the highest last entry, and run every other one\n\
             with --forget-group before it starts again.\n";
    text
}
