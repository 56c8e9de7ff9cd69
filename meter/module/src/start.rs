//! The one link of the process, whatever number of listeners and updates.

use crate::abi;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};
use tollgate_meter_link::{Courier, Identity, Link, Settings, Spill, Sync, UnixDial};

static LINK: OnceLock<Option<Arc<Link>>> = OnceLock::new();

/// Of the library's sources; make says it.
const BUILD: &str = match option_env!("TOLLGATE_METER_BUILD") {
    Some(build) => build,
    None => "000000000000",
};

/// What the filter's configuration says.
pub(crate) struct Config {
    socket: PathBuf,
    sync: Sync,
}

impl Config {
    /// Reads `SOCKET SYNC`; none where it is not that.
    pub(crate) fn parse(text: &[u8]) -> Option<Config> {
        let mut words = std::str::from_utf8(text).ok()?.split_ascii_whitespace();
        let socket = PathBuf::from(words.next()?);
        let sync = match words.next()? {
            "process" => Sync::Process,
            "power" => Sync::Power,
            _ => return None,
        };
        Some(Config { socket, sync })
    }
}

/// The link, started with the first configuration; none where its thread could
/// not be started.
pub(crate) fn link(config: &Config) -> Option<Arc<Link>> {
    LINK.get_or_init(|| start(config)).clone()
}

/// The link's times and bounds. A test can fill a small outbox.
fn settings() -> Settings {
    #[cfg(feature = "fault")]
    return Settings {
        capacity: 8,
        ..Settings::default()
    };
    #[cfg(not(feature = "fault"))]
    Settings::default()
}

fn start(config: &Config) -> Option<Arc<Link>> {
    std::panic::set_hook(Box::new(|panic| {
        // The place, and never the message: that may have bytes of an answer.
        let place = panic.location().map(ToString::to_string);
        abi::log_error(&format!(
            "the meter has failed at {}",
            place.unwrap_or_default()
        ));
    }));
    let pid = std::process::id();
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let instance = format!("{pid:x}-{:x}", now.map_or(0, |d| d.as_nanos()));
    let spill = Spill::beside(&config.socket, &instance, config.sync);
    let identity = Identity {
        instance,
        pid,
        build: BUILD.into(),
    };
    let link = Link::new(identity, settings());
    let dial = Box::new(UnixDial(config.socket.clone()));
    let courier = Courier::new(link.clone(), dial, spill);
    let thread = std::thread::Builder::new().name("tollgate-meter".into());
    let started = abi::without_signals(|| thread.spawn(move || courier.run()));
    if let Err(e) = started {
        abi::log_error(&format!("cannot start the meter's thread: {e}"));
        return None;
    }
    Some(link)
}
