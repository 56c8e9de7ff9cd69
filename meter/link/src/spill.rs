//! The file that stands in for tollgate while that is away.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What a line must survive before it counts as written: the `ledger.sync` of
/// tollgate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// The end of every process: the page cache is enough.
    Process,
    /// A power failure.
    Power,
}

/// A file of lines that is only ever appended to. It is there while it is needed.
pub struct Spill {
    path: PathBuf,
    sync: Sync,
    file: Option<File>,
    /// Its size when the last line was whole.
    whole: u64,
    /// What stands behind that could not be taken back.
    torn: bool,
}

impl Spill {
    /// The spill file of an Envoy process, beside the socket of tollgate.
    pub fn beside(socket: &Path, instance: &str, sync: Sync) -> Spill {
        Spill {
            path: socket.with_file_name(format!("meter-{instance}.spill")),
            sync,
            file: None,
            whole: 0,
            torn: false,
        }
    }

    /// Appends whole lines. Where it fails nothing of them counts: what was
    /// written of them is taken back, or ended as a line that nobody can read.
    pub(crate) fn append(&mut self, lines: &str) -> io::Result<()> {
        self.open()?;
        let torn = self.torn;
        let Some(file) = self.file.as_mut() else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let written = if torn {
            file.write_all(b"\n")
                .and_then(|()| file.write_all(lines.as_bytes()))
        } else {
            file.write_all(lines.as_bytes())
        };
        let written = written.and_then(|()| match self.sync {
            Sync::Power => file.sync_data(),
            Sync::Process => Ok(()),
        });
        match written {
            Ok(()) => {
                self.whole = file.metadata()?.len();
                self.torn = false;
            }
            Err(_) => self.torn = file.set_len(self.whole).is_err() || torn,
        }
        written
    }

    /// Opens the file, anew where somebody has taken it away.
    fn open(&mut self) -> io::Result<()> {
        if let Some(file) = &self.file {
            let there = fs::metadata(&self.path).ok().map(|m| (m.dev(), m.ino()));
            let ours = file.metadata().ok().map(|m| (m.dev(), m.ino()));
            if there.is_some() && there == ours {
                return Ok(());
            }
        }
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&self.path)?;
        self.whole = file.metadata()?.len();
        self.torn = self.whole > 0; // it may be of a write that failed
        self.file = Some(file);
        Ok(())
    }

    /// The file's size, in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.whole
    }

    /// Puts other lines in the place of all that is in the file.
    pub(crate) fn replace(&mut self, lines: &str) -> io::Result<()> {
        let fresh = self.path.with_extension("spill.new");
        let mut file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(&fresh)?;
        file.write_all(lines.as_bytes())?;
        if self.sync == Sync::Power {
            file.sync_data()?;
        }
        fs::rename(&fresh, &self.path)?;
        self.file = None; // the next append opens the new one
        self.whole = lines.len() as u64;
        Ok(())
    }

    /// Is there a file?
    pub(crate) fn in_use(&self) -> bool {
        self.file.is_some() || self.whole > 0
    }

    /// Removes the file: all that is in it is on tollgate's disk.
    pub(crate) fn clear(&mut self) {
        if self.in_use() {
            self.file = None;
            let _ = fs::remove_file(&self.path); // tollgate may have done it
            self.whole = 0;
            self.torn = false;
        }
    }
}
