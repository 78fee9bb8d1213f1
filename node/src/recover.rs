//! `trefoil cluster recover`: after a majority of the voters was lost for good, one stopped node becomes
//! the only voter of its cluster again. Explicit, says what may be lost, and is recorded in the metadata.

use crate::{cli::cluster::RecoverArgs, clock, data_dir::DataDir};
use anyhow::Context;
use std::sync::Arc;
use trefoil_raft::recovery;
use trefoil_store_pages::{Disk, RealDisk};

/// Says what would be lost; does it when `--yes` was given.
pub(crate) async fn run(args: &RecoverArgs) -> anyhow::Result<()> {
    // The lock proves that the node is stopped.
    let directory = DataDir::open(&args.data_dir)?;
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let meta = directory.path().join("meta");
    if args.forget_group {
        if args.yes {
            recovery::forget_group(&disk, &meta).context("forget the node's vote and log")?;
            println!("The node has forgotten its vote and log; it comes back as a learner.");
        } else {
            println!(
                "This takes the node's vote and Raft log away; it comes back as a learner of the"
            );
            println!("recovered cluster. Its data is not touched. Do it with --yes.");
        }
        return Ok(());
    }
    let report = recovery::inspect(disk.clone(), &meta)
        .await
        .context("read the metadata")?;
    let before: Vec<String> = report
        .voters_before
        .iter()
        .map(ToString::to_string)
        .collect();
    println!("Node      {}", report.node);
    println!("Cluster   {}", report.cluster);
    println!("Voters    {}", before.join(", "));
    println!(
        "Last      index {}, term {}",
        report.last.index, report.last.term
    );
    println!(
        "\nThis node becomes the only voter. Lost is what the other voters committed behind the last\n\
         entry; {} of its own newest entries are not known to be committed and count from now on.\n\
         Recover the survivor with the highest last entry, and run every other survivor with\n\
         --forget-group before it starts again.",
        report.uncommitted_entries
    );
    if !args.yes {
        println!("\nNothing was changed. Do it with --yes.");
        return Ok(());
    }
    recovery::become_only_voter(disk, &meta, clock::wall())
        .await
        .context("recover")?;
    println!("\nDone. Start the node.");
    Ok(())
}
