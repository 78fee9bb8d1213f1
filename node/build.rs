//! Generates the peer protocol's types from `proto/peer.proto` without `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = protox::compile(["proto/peer.proto"], ["proto"])?;
    tonic_prost_build::configure()
        .bytes(".")
        .compile_fds(files)?;
    println!("cargo:rerun-if-changed=proto/peer.proto");
    Ok(())
}
