//! What goes on of a body is written into the body's own pieces.

use tollgate_meter_core::overwrite;

/// Every way to cut `size` bytes into pieces, empty ones left out.
fn cuts(size: usize) -> Vec<Vec<usize>> {
    (0..1u32 << (size - 1))
        .map(|marks| {
            let mut sizes = vec![1];
            for place in 0..size - 1 {
                if marks >> place & 1 == 1 {
                    sizes.push(1)
                } else {
                    *sizes.last_mut().expect("one") += 1
                }
            }
            sizes
        })
        .collect()
}

#[test]
fn the_end_is_written_and_nothing_before_it() {
    let (before, after) = (b"abcdefgh", b"ABCDEFGH");
    for sizes in cuts(before.len()) {
        for skip in 0..=before.len() {
            let mut body = before.to_vec();
            let mut rest = body.as_mut_slice();
            let mut pieces = vec![&mut [][..]]; // Envoy's first piece may be empty
            for size in &sizes {
                let (piece, behind) = rest.split_at_mut(*size);
                pieces.push(piece);
                rest = behind;
            }
            overwrite(pieces, skip, &after[skip..]);
            let want = [&before[..skip], &after[skip..]].concat();
            assert_eq!(body, want, "pieces of {sizes:?}, {skip} left as they are");
        }
    }
}
