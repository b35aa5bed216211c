//! The shim's two pipes: orders come down the lifeline, and its end means that the worker is gone; what the
//! shim has to tell goes up the other.

use std::{
    fs::{File, OpenOptions},
    io::{self, ErrorKind, Read, Write},
    os::unix::fs::OpenOptionsExt,
};

use nix::{fcntl::OFlag, unistd::close};

use crate::agent::lifeline::{LIFELINE_FD, Order, STATUS_FD, Status};

/// The shim's ends of its two pipes, neither of which the agent inherits.
pub struct Pipes {
    pub lifeline: File,
    /// The beginning of a line whose end has not arrived.
    unread: Vec<u8>,
    status: File,
}

impl Pipes {
    /// Opens both anew, closed on exec and never blocking, and closes the inherited ones.
    pub fn take() -> io::Result<Self> {
        close_strangers()?;
        let flags = OFlag::O_NONBLOCK.bits();
        let lifeline = OpenOptions::new()
            .read(true)
            .custom_flags(flags)
            .open(format!("/proc/self/fd/{LIFELINE_FD}"))?;
        let status = OpenOptions::new()
            .write(true)
            .custom_flags(flags)
            .open(format!("/proc/self/fd/{STATUS_FD}"))?;
        close(LIFELINE_FD)?;
        close(STATUS_FD)?;
        Ok(Self { lifeline, unread: Vec::new(), status })
    }

    /// Reads the orders that have arrived, and whether the other end is closed.
    pub fn receive(&mut self) -> (Vec<Order>, bool) {
        let mut chunk = [0; 4096];
        let closed = loop {
            match self.lifeline.read(&mut chunk) {
                Ok(0) => break true,
                Ok(read) => self.unread.extend_from_slice(&chunk[..read]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => break error.kind() != ErrorKind::WouldBlock,
            }
        };
        let end = self.unread.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let complete: Vec<u8> = self.unread.drain(..end).collect();
        let text = String::from_utf8_lossy(&complete);
        (text.lines().filter_map(Order::parse).collect(), closed)
    }

    /// Tells the worker; a worker that is gone or does not listen is no reason to stop.
    pub fn tell(&mut self, status: &Status) {
        if let Ok(mut line) = serde_json::to_vec(status) {
            line.push(b'\n');
            let _ = self.status.write_all(&line);
        }
    }
}

/// Closes what the worker itself was started with by accident, or the agent would inherit it.
fn close_strangers() -> io::Result<()> {
    let open: Vec<i32> = std::fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    for descriptor in open.into_iter().filter(|number| *number > STATUS_FD) {
        // The descriptor of the listing is among them and closed already.
        let _ = close(descriptor);
    }
    Ok(())
}
