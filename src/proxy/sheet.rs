//! How the pages look that are made here, and what a browser may do with them.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The style of every page.
pub const STYLE: &str = include_str!("page.css");

/// The `Content-Security-Policy` of every page: nothing is loaded, run, sent or framed, and
/// the one style that counts is ours, by its digest.
pub static POLICY: LazyLock<String> = LazyLock::new(|| {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, STYLE.as_bytes());
    format!(
        "default-src 'none'; style-src 'sha256-{}'; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'",
        STANDARD.encode(digest)
    )
});
