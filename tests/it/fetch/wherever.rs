//! Downloads that are cut anywhere, large ones, and what curl says of them.

use super::*;

/// Steps that cut a download at places that follow from a seed, and sometimes have another
/// file stand there by then.
fn troubles(seed: u64, size: u64, cuts: u64) -> (String, bool) {
    let mut changes = false;
    let mut steps = Vec::new();
    for nth in 0..cuts {
        let draw = mix(seed ^ (nth << 32));
        // Cuts come later and later, so that each resume brings something.
        let (from, to) = (size * nth / cuts, size * (nth + 1) / cuts);
        let at = from + 1 + draw % (to - from - 1);
        let how = ["", " cut_by=reset", " cut_by=failed_stream", " chunked"];
        let mut how = how[usize::try_from(draw >> 60).expect("small") % how.len()];
        if nth > 0 && (draw >> 40).is_multiple_of(6) {
            // Never with a reset, which may come before the head is read: then nothing changed.
            (how, changes) = (" tag=b", true);
        }
        steps.push(format!("ok cut_at={at}{how}"));
    }
    (steps.join("; "), changes)
}

#[tokio::test]
async fn wherever_it_is_cut_the_bytes_are_right_or_it_visibly_fails() {
    let yard = yard(FETCH).await;
    let size = 300_000;
    let (mut went_on, mut failed) = (0, 0);
    for seed in 0..12 {
        for over in ALL {
            let (steps, changes) = troubles(seed, size, 6);
            let found = yard.get(over, size, &steps).await;
            assert!(found.right, "{seed} {over:?} {steps}: {found:?}");
            assert_eq!(found.whole, found.bytes == size, "{seed} {over:?} {steps}: {found:?}");
            assert!(found.whole || changes, "{seed} {over:?} {steps}: {found:?}");
            *if found.whole { &mut went_on } else { &mut failed } += 1;
        }
    }
    assert!(went_on > 5 && failed > 5, "both are seen: {went_on} and {failed}");
}

#[tokio::test]
async fn a_hundred_mebibytes_come_whole_and_are_never_held() {
    let size = 100 * 1024 * 1024;
    let options = Options { alpn: vec!["http/1.1".to_owned()], ..Options::default() };
    // Over HTTP/2 on both sides, and from HTTP/1 to a client of HTTP/2.
    for (options, seed) in [(Options::default(), 1), (options, 2)] {
        let yard = yard_with(FETCH, options).await;
        let (steps, _) = troubles(seed, size, 8);
        let steps = steps.replace(" tag=b", "");
        assert_eq!(yard.get(Over::Http2, size, &steps).await, came(size, true), "{steps}");
        assert!(yard.ranges().len() == 9, "{:?}", yard.ranges());
        let status = std::fs::read_to_string(format!("/proc/{}/status", yard.samekey.pid()));
        let status = status.unwrap_or_default(); // where there is none, nothing is said
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.and_then(|text| text.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        assert!(peak.is_none_or(|kilobytes| kilobytes * 1024 < size), "{peak:?}");
    }
}

#[tokio::test]
async fn curl_says_18_where_it_is_cut_and_0_where_it_went_on() {
    let found = std::process::Command::new("curl").arg("--version").output();
    assert!(found.is_ok(), "curl is missing: run .ci/install");
    let yard = yard(FETCH).await;
    let file = yard.samekey.path().join("clip");
    let url = yard.provider.ports.http_url("/s/s/files/clip?size=1000000");
    for (steps, code) in [
        ("ok cut_at=400000; ok cut_at=700000", 0),
        ("ok chunked cut_at=400000; ok cut_at=700000", 0),
        ("ok cut_at=400000; ok tag=b", 18),
        ("ok chunked cut_at=400000; ok tag=b", 18),
        ("ok lie=weak cut_at=400000", 18),
    ] {
        yard.provider.script("s", steps);
        let mut curl = Command::new("curl");
        curl.args(["--fail", "--silent", "--show-error", "--noproxy", ""]);
        curl.args(["--proxy", &yard.samekey.url(), "-o"]).arg(&file).arg(&url);
        let ended = ran(&mut curl).await;
        assert_eq!(ended.code, Some(code), "{steps}: {}", ended.err);
        let got = blake3::hash(&std::fs::read(&file).expect("a file"));
        let mut wanted = blake3::Hasher::new();
        for piece in pieces("a", 0, 1_000_000) {
            wanted.update(&piece);
        }
        assert_eq!(got == wanted.finalize(), code == 0, "{steps}");
        std::fs::remove_file(&file).expect("it is there");
    }
}
