//! Breaks the meter where a test wants it. Only with the feature `fault`.

use crate::host::Host;

/// Panics where the engine says so in its answer.
pub(crate) fn body(host: &impl Host) {
    const WORD: &[u8] = b"tollgate-meter-fault";
    let asked = host.with_body(|pieces| {
        let found = |p: &&[u8]| p.windows(WORD.len()).any(|w| w == WORD);
        pieces.iter().any(found)
    });
    assert!(!asked, "asked for");
}
