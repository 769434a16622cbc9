//! Webhooks: posted when a job is done, signed, and posted again.

use std::net::SocketAddr;
use std::time::Duration;

use aws_lc_rs::hmac;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// One thing to tell, and how often.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    /// Plain HTTP, at an address.
    pub(crate) url: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
    /// When it is due.
    pub(crate) after: Duration,
    pub(crate) times: Times,
}

/// How often a webhook is posted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Times {
    /// Twice, whatever is answered.
    Twice,
    /// Until it is answered 2xx in time, six times at most, with waits that double from this.
    UntilTaken(Duration),
}

impl Delivery {
    /// Posts it as often as it has to be; `told` hears of each try.
    pub(crate) async fn post(self, told: impl Fn(u16)) {
        sleep(self.after).await;
        let (most, mut wait) = match self.times {
            Times::Twice => (2, Duration::ZERO),
            Times::UntilTaken(first) => (MOST, first),
        };
        for _ in 0..most {
            let status = timeout(PATIENCE, self.once()).await.ok().flatten().unwrap_or(0);
            told(status);
            if self.times != Times::Twice && (200..300).contains(&status) {
                return;
            }
            sleep(wait).await;
            wait *= 2;
        }
    }

    /// Posts it once: the status, where one came.
    async fn once(&self) -> Option<u16> {
        let rest = self.url.strip_prefix("http://")?;
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let address: SocketAddr = host.replace("localhost", "127.0.0.1").parse().ok()?;
        let mut tcp = TcpStream::connect(address).await.ok()?;
        let fields = self.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n"));
        let (fields, length) = (fields.collect::<String>(), self.body.len());
        let text = format!(
            "POST /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n{fields}\r\n{}",
            self.body
        );
        tcp.write_all(text.as_bytes()).await.ok()?;
        let mut came = Vec::new();
        tcp.take(HEAD_MAX).read_to_end(&mut came).await.ok()?;
        let came = String::from_utf8_lossy(&came).into_owned();
        came.split_whitespace().nth(1)?.parse().ok()
    }
}

/// HMAC-SHA256 under the secret that the tests know, in hex.
pub(crate) fn signature(signed: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, WEBHOOK_SECRET.as_bytes());
    let tag = hmac::sign(&key, signed.as_bytes());
    let digits = tag.as_ref().iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.filter_map(|digit| char::from_digit(u32::from(digit), 16)).collect()
}

/// What signs the webhooks of every account.
pub(crate) const WEBHOOK_SECRET: &str = "whsec-of-the-tests";
/// Deliveries of one webhook at most.
const MOST: u32 = 6;
/// How long a receiver has to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// More than any receiver of a test answers.
const HEAD_MAX: u64 = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_what_openssl_says() {
        // printf 1.{} | openssl dgst -sha256 -hmac whsec-of-the-tests
        assert_eq!(
            signature("1.{}"),
            "93ec71297ebf5a61993b3fea3407e7e5b038cc14dc46ebda80cf2b71ee366ca0"
        );
    }
}
