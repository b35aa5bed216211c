//! A reader that comes back with its place sees every entry once, whatever it was given in between.
#![no_main]

use archon_awo_fuzz::domain::LogCursor;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, Vec<i64>)| {
    let (text, seqs) = input;
    let Ok(mut cursor) = text.parse::<LogCursor>() else {
        let number = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty();
        assert!(!number || text.parse::<i64>().is_err(), "{text:?}");
        return;
    };
    assert!(cursor.seq() >= 0);
    assert_eq!(text.parse(), Ok(cursor.seq()));
    let mut shown = Vec::new();
    for seq in seqs {
        // The connection breaks after every entry.
        cursor = cursor.to_string().parse().expect("a place that was given out is one");
        let before = cursor;
        if cursor.advance(seq) {
            assert!(seq > before.seq());
            shown.push(seq);
        } else {
            assert_eq!(cursor, before);
        }
    }
    assert!(shown.is_sorted_by(|a, b| a < b), "{shown:?}");
});
