//! TUN devices: a file through which IP packets of a namespace come out and go in.
//!
//! The kernel removes a device when the last copy of its file is closed, so that none outlives the
//! process. A child that is just being started has such a copy for a moment; who needs the device gone
//! at once calls [`remove_device`].

use super::namespace::inside;
use anyhow::{Context, bail};
use rustix::{
    fs::{Mode, OFlags, open},
    ioctl::{Opcode, Updater, ioctl, opcode},
};
use std::{
    ffi::c_int,
    io::Write,
    net::Ipv4Addr,
    os::fd::OwnedFd,
    path::Path,
    process::{Command, Stdio},
};

/// Names of Linux' network devices are shorter than this.
const DEVICE_NAME_BYTES: usize = 16;
/// Packets that the kernel keeps for the switch; when the switch is late, more are lost as on a busy card.
const DEVICE_QUEUE_PACKETS: usize = 4096;
/// The size of the largest packet: jumbo frames, as data centres use them.
pub(crate) const MTU_BYTES: usize = 9000;

/// From `linux/if_tun.h`.
const TUN_SET_DEVICE: Opcode = opcode::write::<c_int>(b'T', 202);
/// `IFF_TUN`: IP packets without Ethernet.
const FLAG_TUN: u16 = 0x0001;
/// `IFF_NO_PI`: no header before a packet.
const FLAG_NO_PACKET_INFORMATION: u16 = 0x1000;

/// `struct ifreq` as far as TUN uses it, at its full length.
#[repr(C)]
struct DeviceRequest {
    name: [u8; DEVICE_NAME_BYTES],
    flags: u16,
    unused: [u8; 22],
}

/// Makes a device in a namespace, gives it the address and brings it and loopback up. Reads and writes
/// of the file never wait; each is one packet.
///
/// # Errors
/// When the namespace, the right or `ip` is missing, or the name is taken or too long.
pub(crate) fn open_tun(
    namespace: &Path,
    name: &str,
    address: Ipv4Addr,
    prefix: u8,
) -> anyhow::Result<OwnedFd> {
    let mut request = DeviceRequest {
        name: [0; DEVICE_NAME_BYTES],
        flags: FLAG_TUN | FLAG_NO_PACKET_INFORMATION,
        unused: [0; 22],
    };
    if name.is_empty() || name.len() >= DEVICE_NAME_BYTES {
        bail!("{name:?} cannot name a network device");
    }
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    inside(namespace, || {
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = open("/dev/net/tun", flags, Mode::empty()).context("open /dev/net/tun")?;
        // SAFETY: the kernel reads and writes exactly one `struct ifreq` for TUNSETIFF, 40 bytes on
        // 64-bit and 32 on 32-bit machines; `DeviceRequest` has 40 and lives until the call returns.
        unsafe { ioctl(&file, Updater::<TUN_SET_DEVICE, _>::new(&mut request)) }
            .with_context(|| format!("make the network device {name}"))?;
        // Without IPv6 there is no chatter that nobody asked for.
        run_ip(&format!(
            "link set lo up\n\
             link set {name} addrgenmode none mtu {MTU_BYTES} txqueuelen {DEVICE_QUEUE_PACKETS} up\n\
             address add {address}/{prefix} dev {name}\n"
        ))?;
        Ok(file)
    })
}

/// Gives a device another address in place of the one that it has.
///
/// # Errors
/// When `ip` refuses; the device may have no address then.
pub(crate) fn replace_address(
    namespace: &Path,
    name: &str,
    old: Ipv4Addr,
    new: Ipv4Addr,
    prefix: u8,
) -> anyhow::Result<()> {
    inside(namespace, || {
        run_ip(&format!(
            "address delete {old}/{prefix} dev {name}\n\
             address add {new}/{prefix} dev {name}\n"
        ))
    })
}

/// Removes a device now.
///
/// # Errors
/// When it or its namespace is gone already.
pub(crate) fn remove_device(namespace: &Path, name: &str) -> anyhow::Result<()> {
    inside(namespace, || run_ip(&format!("link delete {name}\n")))
}

/// Runs commands of iproute2, one per line, in the namespace of the calling thread.
fn run_ip(commands: &str) -> anyhow::Result<()> {
    let mut child = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("run ip (package iproute2)")?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(commands.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("ip refused {commands:?}: {}", said.trim());
    }
    Ok(())
}
