//! What peers say about time: when to come back, whether at all, how long they wait.
//!
//! A hint is read where several stages want it: retry waits for it, limit pauses
//! by it, and an answer repeats what is left of it. Everything here comes from
//! outside: nothing overflows, and what makes no sense says nothing.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use format::{
    basic_date, go_duration, grpc_timeout, milliseconds, number, rfc3339, seconds, used_up,
};

mod format;

/// What a response says about when to come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// Nothing, or that the time has come.
    Absent,
    /// Nothing that makes sense.
    Invalid,
    /// Not before this has passed; never zero.
    Wait(Duration),
}

/// What an upstream says about trying again, whatever the status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instruction {
    /// Do not.
    Stop,
    /// Do.
    Retry,
}

/// Reads when to come back, from the first field that says so.
///
/// The order is `retry-after-ms`, `x-ms-retry-after-ms`, `x-amz-retry-after`,
/// `Retry-After`, `RateLimit`, `RateLimit-Reset`, `anthropic-ratelimit-*-reset`,
/// `x-ratelimit-reset-{requests,tokens}`, `x-ratelimit-reset`: explicit requests
/// before windows, since a window may end later than it has to. A zero, a past
/// time and nonsense say nothing, so the next field is asked.
pub fn wait(status: StatusCode, headers: &HeaderMap, now: SystemTime) -> Hint {
    if !headers.keys().any(may_hint) {
        return Hint::Absent;
    }
    let asked = Asked { throttled: status == StatusCode::TOO_MANY_REQUESTS, headers, now };
    let sources = [
        Asked::milliseconds,
        Asked::retry_after,
        Asked::rate_limit,
        Asked::rate_limit_reset,
        Asked::anthropic,
        Asked::requests_and_tokens,
        Asked::x_rate_limit,
    ];
    let mut told = Hint::Absent;
    for source in sources {
        match source(&asked) {
            Hint::Wait(wait) => return Hint::Wait(wait),
            Hint::Invalid => told = Hint::Invalid,
            Hint::Absent => (),
        }
    }
    told
}

/// Whether a response asks for fewer requests: 429; 503 with `Retry-After`; 403 with
/// `Retry-After` or `x-ratelimit-remaining: 0` (GitHub's two limits); 529 (Anthropic's overload).
pub fn throttles(status: StatusCode, headers: &HeaderMap) -> bool {
    let told = || headers.contains_key(http::header::RETRY_AFTER);
    match status.as_u16() {
        429 | 529 => true,
        503 => told(),
        403 => {
            let left = headers.get("x-ratelimit-remaining");
            told() || left.is_some_and(|left| left.as_bytes().trim_ascii() == b"0")
        }
        _ => false,
    }
}

/// Reads whether the upstream wants another try; `Stop` wins over `Retry`.
pub fn instructed(headers: &HeaderMap) -> Option<Instruction> {
    let says = |name: &HeaderName, word: &str| {
        texts(headers, name).any(|text| text.is_some_and(|text| text.eq_ignore_ascii_case(word)))
    };
    let pushed_back = texts(headers, &GRPC_PUSHBACK)
        .any(|text| text.and_then(|text| text.parse::<u64>().ok()).is_none());
    let stop = says(&SHOULD_RETRY, "false")
        || says(&STRIPE_SHOULD_RETRY, "false")
        || headers.contains_key(&FINAGLE_NACK)
        || pushed_back;
    let retry = || says(&SHOULD_RETRY, "true") || says(&STRIPE_SHOULD_RETRY, "true");
    stop.then_some(Instruction::Stop).or_else(|| retry().then_some(Instruction::Retry))
}

/// Reads how long the client will wait for its answer, as far as it says so.
///
/// The shortest of what it says, less a margin, so that it has our answer before
/// it gives up: an SDK that gives up starts over.
pub fn client_patience(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    if !headers.keys().any(may_tell_of_client) {
        return None;
    }
    // Zero is an SDK's word for no limit.
    let plain = |name, parse: fn(&str) -> Option<Duration>| {
        texts(headers, name).flatten().filter_map(parse).find(|told| !told.is_zero())
    };
    let told = [
        plain(&STAINLESS_TIMEOUT, seconds),
        plain(&STAINLESS_READ_TIMEOUT, seconds),
        plain(&ENVOY_TIMEOUT, milliseconds),
        plain(&GRPC_TIMEOUT, grpc_timeout),
        amz_request(headers, "ttl")
            .and_then(basic_date)
            .map(|end| end.duration_since(now).unwrap_or_default()),
    ];
    let patience = told.into_iter().flatten().min()?;
    Some(patience.saturating_sub((patience / 20).max(MARGIN_MIN)))
}

/// Whether a client's SDK says that this request is itself a retry.
pub fn is_sdk_retry(headers: &HeaderMap) -> bool {
    if !headers.keys().any(may_tell_of_client) {
        return false;
    }
    let above = |text: Option<&str>, most: u32| {
        text.and_then(|text| text.parse::<u32>().ok()).is_some_and(|count| count > most)
    };
    let google = texts(headers, &GOOG_CLIENT)
        .flatten()
        .flat_map(str::split_ascii_whitespace)
        .find_map(|word| word.strip_prefix("gccl-attempt-count/"));
    above(texts(headers, &STAINLESS_RETRIES).flatten().next(), 0)
        || above(texts(headers, &ENVOY_ATTEMPTS).flatten().next(), 1)
        || above(amz_request(headers, "attempt"), 1)
        || above(google, 1)
}

/// A response that is asked when to come back.
struct Asked<'a> {
    /// A 429: a window that names no remainder is used up.
    throttled: bool,
    headers: &'a HeaderMap,
    now: SystemTime,
}

impl Asked<'_> {
    fn milliseconds(&self) -> Hint {
        [&RETRY_AFTER_MS, &MS_RETRY_AFTER, &AMZ_RETRY_AFTER]
            .map(|name| longest(texts(self.headers, name), milliseconds))
            .into_iter()
            .fold(Hint::Absent, Hint::or)
    }

    fn retry_after(&self) -> Hint {
        longest(texts(self.headers, &header::RETRY_AFTER), |text| {
            seconds(text).or_else(|| httpdate::parse_http_date(text).ok().map(|at| self.until(at)))
        })
    }

    /// Several policies in one field: the longest of those that are used up.
    fn rate_limit(&self) -> Hint {
        let items = texts(self.headers, &RATE_LIMIT)
            .try_fold(Duration::ZERO, |most, text| text.and_then(used_up).map(|t| most.max(t)));
        items.map_or(Hint::Invalid, Hint::of)
    }

    fn rate_limit_reset(&self) -> Hint {
        self.window(&RATE_LIMIT_RESET, &RATE_LIMIT_REMAINING, seconds)
    }

    fn anthropic(&self) -> Hint {
        let resets = self.headers.keys().filter_map(|name| {
            let window = name.as_str().strip_prefix("anthropic-ratelimit-")?;
            Some((name, window.strip_suffix("-reset")?))
        });
        let read = |text: &str| rfc3339(text).map(|at| self.until(at));
        resets.fold(Hint::Absent, |most, (name, window)| {
            let remaining = self.headers.get(format!("anthropic-ratelimit-{window}-remaining"));
            if self.counts(remaining) {
                most.longer(longest(texts(self.headers, name), read))
            } else {
                most
            }
        })
    }

    fn requests_and_tokens(&self) -> Hint {
        let read = |text: &str| go_duration(text).or_else(|| self.reset(text));
        let requests = self.window(&X_RESET_REQUESTS, &X_REMAINING_REQUESTS, read);
        requests.longer(self.window(&X_RESET_TOKENS, &X_REMAINING_TOKENS, read))
    }

    fn x_rate_limit(&self) -> Hint {
        self.window(&X_RESET, &X_REMAINING, |text| self.reset(text))
    }

    fn window(
        &self,
        reset: &HeaderName,
        remaining: &HeaderName,
        read: impl Fn(&str) -> Option<Duration>,
    ) -> Hint {
        if !self.counts(self.headers.get(remaining)) {
            return Hint::Absent;
        }
        longest(texts(self.headers, reset), read)
    }

    /// Whether the end of a window means anything: only where it is used up.
    fn counts(&self, remaining: Option<&HeaderValue>) -> bool {
        match remaining.map(|value| value.to_str().ok().and_then(|text| seconds(text.trim()))) {
            None => self.throttled,
            Some(left) => left.is_some_and(|left| left.is_zero()),
        }
    }

    /// A number that is an epoch in milliseconds, an epoch in seconds, or seconds
    /// from now: nobody means 30 years by the last, or 1970 by the first.
    fn reset(&self, text: &str) -> Option<Duration> {
        let told = number(text, EPOCH_MS_DIGITS)?;
        let epoch = match told.as_secs() {
            0..1_000_000_000 => return Some(told),
            1_000_000_000..1_000_000_000_000 => told,
            millis => Duration::from_millis(millis),
        };
        SystemTime::UNIX_EPOCH.checked_add(epoch).map(|at| self.until(at))
    }

    /// The time to `at` by the upstream's own clock where it tells it, which takes
    /// the difference between our clocks out. A `Date` that is a day off is a
    /// stored response's.
    fn until(&self, at: SystemTime) -> Duration {
        let date = texts(self.headers, &header::DATE).flatten().next();
        let theirs = date.and_then(|text| httpdate::parse_http_date(text).ok()).filter(|date| {
            let apart = date.duration_since(self.now).unwrap_or_else(|before| before.duration());
            apart <= DATE_TRUST
        });
        at.duration_since(theirs.unwrap_or(self.now)).unwrap_or_default()
    }
}

impl Hint {
    fn of(wait: Duration) -> Self {
        if wait.is_zero() { Self::Absent } else { Self::Wait(wait) }
    }

    /// The first of two that says how long, else the one that says anything.
    fn or(self, next: Self) -> Self {
        match (self, next) {
            (Self::Wait(wait), _) | (Self::Absent | Self::Invalid, Self::Wait(wait)) => {
                Self::Wait(wait)
            }
            (Self::Invalid, _) | (_, Self::Invalid) => Self::Invalid,
            (Self::Absent, Self::Absent) => Self::Absent,
        }
    }

    fn longer(self, other: Self) -> Self {
        match (self, other) {
            (Self::Wait(one), Self::Wait(two)) => Self::Wait(one.max(two)),
            (one, two) => one.or(two),
        }
    }
}

/// The lines of a field, trimmed; `None` for one that is not visible ASCII.
fn texts<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = Option<&'a str>> + use<'a> {
    headers.get_all(name).into_iter().map(|value| value.to_str().ok().map(str::trim))
}

fn longest<'a>(
    lines: impl Iterator<Item = Option<&'a str>>,
    read: impl Fn(&str) -> Option<Duration>,
) -> Hint {
    let hints = lines.map(|text| text.and_then(&read).map_or(Hint::Invalid, Hint::of));
    hints.fold(Hint::Absent, Hint::longer)
}

/// The value of `name=` in the SDK's `amz-sdk-request`.
fn amz_request<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let members = texts(headers, &AMZ_REQUEST).flatten().flat_map(|text| text.split(';'));
    members.filter_map(|member| member.trim().split_once('=')).find(|m| m.0 == name).map(|m| m.1)
}

/// Whether a field of this name is worth a second look: most responses have none.
fn may_hint(name: &HeaderName) -> bool {
    let name = name.as_str();
    match name.bytes().next() {
        Some(b'r') => name.starts_with("retry-after") || name.starts_with("ratelimit"),
        Some(b'x') => ["x-ratelimit-", "x-ms-retry-", "x-amz-retry-"]
            .iter()
            .any(|start| name.starts_with(start)),
        Some(b'a') => name.starts_with("anthropic-ratelimit-"),
        _ => false,
    }
}

fn may_tell_of_client(name: &HeaderName) -> bool {
    let name = name.as_str();
    match name.bytes().next() {
        Some(b'x') => {
            ["x-stainless-", "x-envoy-", "x-goog-api-"].iter().any(|start| name.starts_with(start))
        }
        Some(b'a') => name == "amz-sdk-request",
        Some(b'g') => name == "grpc-timeout",
        _ => false,
    }
}

/// How far a `Date` may be from our clock before it is not this response's.
const DATE_TRUST: Duration = Duration::from_hours(24);

/// The least that is kept back of a client's patience: a network's round trip,
/// and time to write an answer.
const MARGIN_MIN: Duration = Duration::from_millis(250);

/// Digits of an epoch in milliseconds, until the year 2286.
const EPOCH_MS_DIGITS: usize = 13;

static RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
static MS_RETRY_AFTER: HeaderName = HeaderName::from_static("x-ms-retry-after-ms");
static AMZ_RETRY_AFTER: HeaderName = HeaderName::from_static("x-amz-retry-after");
static RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
static RATE_LIMIT_RESET: HeaderName = HeaderName::from_static("ratelimit-reset");
static RATE_LIMIT_REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
static X_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
static X_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
static X_RESET_REQUESTS: HeaderName = HeaderName::from_static("x-ratelimit-reset-requests");
static X_REMAINING_REQUESTS: HeaderName = HeaderName::from_static("x-ratelimit-remaining-requests");
static X_RESET_TOKENS: HeaderName = HeaderName::from_static("x-ratelimit-reset-tokens");
static X_REMAINING_TOKENS: HeaderName = HeaderName::from_static("x-ratelimit-remaining-tokens");
static SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
static STRIPE_SHOULD_RETRY: HeaderName = HeaderName::from_static("stripe-should-retry");
static FINAGLE_NACK: HeaderName = HeaderName::from_static("finagle-http-nonretryable-nack");
static GRPC_PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");
static STAINLESS_TIMEOUT: HeaderName = HeaderName::from_static("x-stainless-timeout");
static STAINLESS_READ_TIMEOUT: HeaderName = HeaderName::from_static("x-stainless-read-timeout");
static STAINLESS_RETRIES: HeaderName = HeaderName::from_static("x-stainless-retry-count");
static ENVOY_TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");
static ENVOY_ATTEMPTS: HeaderName = HeaderName::from_static("x-envoy-attempt-count");
static GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
static AMZ_REQUEST: HeaderName = HeaderName::from_static("amz-sdk-request");
static GOOG_CLIENT: HeaderName = HeaderName::from_static("x-goog-api-client");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Sun, 06 Nov 1994 08:49:37 GMT, the date of RFC 9110.
    const NOW_S: u64 = 784_111_777;

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(NOW_S)
    }

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            let name = name.parse::<HeaderName>().expect("a name");
            map.append(name, HeaderValue::from_bytes(value.as_bytes()).expect("a value"));
        }
        map
    }

    fn check(status: u16, lines: &[(&str, &str)], wanted: Hint) {
        let status = StatusCode::from_u16(status).expect("a status");
        assert_eq!(wait(status, &headers(lines), now()), wanted, "{status} {lines:?}");
    }

    fn ms(wait: u64) -> Hint {
        Hint::Wait(Duration::from_millis(wait))
    }

    #[test]
    fn retry_after_is_read_in_every_form() {
        for (value, wanted) in [
            ("5", ms(5000)),
            (" 5 ", ms(5000)),
            ("1.5", ms(1500)),
            ("0.001", ms(1)),
            ("007", ms(7000)),
            ("9999999999", Hint::Wait(Duration::from_secs(9_999_999_999))),
            ("Sun, 06 Nov 1994 08:50:37 GMT", ms(60_000)),
            ("Sunday, 06-Nov-94 08:50:37 GMT", ms(60_000)),
            ("Sun Nov  6 08:50:37 1994", ms(60_000)),
            ("0", Hint::Absent),
            ("0.0", Hint::Absent),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Hint::Absent),
            ("Sat, 06 Nov 1993 08:49:37 GMT", Hint::Absent),
            ("-1", Hint::Invalid),
            ("+1", Hint::Invalid),
            ("1e3", Hint::Invalid),
            ("NaN", Hint::Invalid),
            ("inf", Hint::Invalid),
            ("1.", Hint::Invalid),
            (".5", Hint::Invalid),
            ("1.2.3", Hint::Invalid),
            ("5, 6", Hint::Invalid),
            ("soon", Hint::Invalid),
            ("", Hint::Invalid),
            ("10000000000", Hint::Invalid),
            ("٣", Hint::Invalid),
            ("Sun, 99 Nov 1994 08:50:37 GMT", Hint::Invalid),
        ] {
            check(503, &[("retry-after", value)], wanted);
        }
        check(200, &[("content-type", "text/plain")], Hint::Absent);
    }

    #[test]
    fn of_several_lines_the_longest_counts() {
        check(429, &[("retry-after", "3"), ("retry-after", "9"), ("retry-after", "x")], ms(9000));
        check(429, &[("retry-after", "0"), ("retry-after", "x")], Hint::Invalid);
    }

    #[test]
    fn the_first_field_that_says_how_long_is_obeyed() {
        let order: [(&[(&str, &str)], u64); 9] = [
            (&[("retry-after-ms", "1")], 1),
            (&[("x-ms-retry-after-ms", "2.0")], 2),
            (&[("x-amz-retry-after", "3")], 3),
            (&[("retry-after", "4")], 4000),
            (&[("ratelimit", "\"a\";r=0;t=5")], 5000),
            (&[("ratelimit-reset", "6")], 6000),
            (&[("anthropic-ratelimit-tokens-reset", "1994-11-06T08:49:44Z")], 7000),
            (&[("x-ratelimit-reset-requests", "8s"), ("x-ratelimit-reset-tokens", "120ms")], 8000),
            (&[("x-ratelimit-reset", "9")], 9000),
        ];
        for from in 0..order.len() {
            let lines: Vec<_> =
                order[from..].iter().rev().flat_map(|(lines, _)| *lines).copied().collect();
            check(429, &lines, ms(order[from].1));
        }
        check(429, &[("retry-after-ms", "x"), ("retry-after", "4")], ms(4000));
        check(429, &[("retry-after-ms", "0"), ("retry-after", "4")], ms(4000));
        check(429, &[("retry-after-ms", "x"), ("retry-after", "0")], Hint::Invalid);
    }

    #[test]
    fn a_window_counts_only_when_it_is_used_up() {
        for (reset, remaining, value) in [
            ("ratelimit-reset", "ratelimit-remaining", "7"),
            ("x-ratelimit-reset", "x-ratelimit-remaining", "7"),
            ("x-ratelimit-reset-requests", "x-ratelimit-remaining-requests", "7s"),
            ("x-ratelimit-reset-tokens", "x-ratelimit-remaining-tokens", "7"),
        ] {
            check(403, &[(reset, value), (remaining, "0")], ms(7000));
            check(429, &[(reset, value)], ms(7000));
            check(403, &[(reset, value)], Hint::Absent);
            check(429, &[(reset, value), (remaining, "1")], Hint::Absent);
            check(429, &[(reset, value), (remaining, "x")], Hint::Absent);
        }
    }

    #[test]
    fn of_several_policies_the_longest_used_up_counts() {
        for (value, wanted) in [
            ("\"a\";r=0;t=5", ms(5000)),
            ("\"a\";r=0;t=5, \"b\";r=0;t=8,\"c\";r=1;t=99", ms(8000)),
            ("\"a;r=1;t=9, \\\" x\"; r=0 ; t=5", Hint::Invalid),
            ("\"a;r=1;t=9, \\\" x\"; r=0; t=5", ms(5000)),
            ("a;r=0;t=5;pk=:YQ==:", ms(5000)),
            ("a;t=5", Hint::Absent),
            ("a;r=0", Hint::Absent),
            ("a;r=0;t=0", Hint::Absent),
            ("a;r=0;t=-5", Hint::Invalid),
            ("a;r=0;t=5,", Hint::Invalid),
            ("\"a;r=0;t=5", Hint::Invalid),
            (";r=0;t=5", Hint::Invalid),
            ("", Hint::Invalid),
        ] {
            check(429, &[("ratelimit", value)], wanted);
        }
        check(429, &[("ratelimit", "a;r=0;t=5"), ("ratelimit", "a;r=0;t=6")], ms(6000));
        check(429, &[("ratelimit", "a;r=0;t=5"), ("ratelimit", "\"")], Hint::Invalid);
    }

    #[test]
    fn the_longest_of_the_used_up_anthropic_windows_counts() {
        let at = |s: &str| format!("1994-11-06T08:49:{s}");
        let (a, b, c) = (at("40Z"), at("45.5Z"), "1994-11-06T10:49:41+02:00".to_owned());
        check(
            429,
            &[
                ("anthropic-ratelimit-requests-reset", &a),
                ("anthropic-ratelimit-requests-remaining", "0"),
                ("anthropic-ratelimit-tokens-reset", &b),
                ("anthropic-ratelimit-tokens-remaining", "17"),
                ("anthropic-ratelimit-input-tokens-reset", &c),
            ],
            ms(4000),
        );
    }

    #[test]
    fn numbers_tell_epochs_from_seconds() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_hours(500_000);
        for (value, wanted) in [
            ("1800000030", ms(30_000)),
            ("1800000030500", ms(30_500)),
            ("1799999999", Hint::Absent),
            ("30", ms(30_000)),
            ("30.25", ms(30_250)),
            ("18000000305001", Hint::Invalid),
        ] {
            let map = headers(&[("x-ratelimit-reset", value)]);
            assert_eq!(super::wait(StatusCode::TOO_MANY_REQUESTS, &map, now), wanted, "{value}");
        }
    }

    #[test]
    fn dates_are_counted_from_the_upstreams_clock() {
        let at = ("retry-after", "Sun, 06 Nov 1994 08:50:37 GMT");
        check(429, &[at, ("date", "Sun, 06 Nov 1994 08:50:07 GMT")], ms(30_000));
        check(429, &[at, ("date", "Sat, 05 Nov 1994 08:49:37 GMT")], ms(86_460_000));
        check(429, &[at, ("date", "Sat, 05 Nov 1994 08:49:36 GMT")], ms(60_000));
        check(429, &[at, ("date", "x")], ms(60_000));
    }

    #[test]
    fn durations_are_read_as_go_writes_them() {
        for (value, wanted) in [
            ("6m0s", ms(360_000)),
            ("1h2m3.5s", ms(3_723_500)),
            ("120ms", ms(120)),
            ("1.5ms", Hint::Wait(Duration::from_micros(1500))),
            ("9µs", Hint::Invalid),
            ("9us", Hint::Wait(Duration::from_micros(9))),
            ("9ns", Hint::Wait(Duration::from_nanos(9))),
            ("0s", Hint::Absent),
            ("s", Hint::Invalid),
            ("5m3", Hint::Invalid),
            ("5 m", Hint::Invalid),
            ("-5m", Hint::Invalid),
            ("9999999999h9999999999h", Hint::Wait(Duration::from_hours(2 * 9_999_999_999))),
        ] {
            check(429, &[("x-ratelimit-reset-tokens", value)], wanted);
        }
    }

    #[test]
    fn the_upstreams_own_word_is_heard() {
        for (lines, wanted) in [
            (&[("x-should-retry", "false")][..], Some(Instruction::Stop)),
            (&[("x-should-retry", "TRUE")], Some(Instruction::Retry)),
            (&[("stripe-should-retry", "false")], Some(Instruction::Stop)),
            (&[("stripe-should-retry", "true")], Some(Instruction::Retry)),
            (
                &[("stripe-should-retry", "true"), ("x-should-retry", "false")],
                Some(Instruction::Stop),
            ),
            (&[("x-should-retry", "maybe")], None),
            (&[("finagle-http-nonretryable-nack", "")], Some(Instruction::Stop)),
            (&[("grpc-retry-pushback-ms", "-1")], Some(Instruction::Stop)),
            (&[("grpc-retry-pushback-ms", "x")], Some(Instruction::Stop)),
            (&[("grpc-retry-pushback-ms", "10")], None),
            (&[], None),
        ] {
            assert_eq!(instructed(&headers(lines)), wanted, "{lines:?}");
        }
    }

    #[test]
    fn patience_is_the_shortest_that_is_told_less_a_margin() {
        let millis = |ms| Some(Duration::from_millis(ms));
        for (lines, wanted) in [
            (&[("x-stainless-timeout", "60")][..], millis(57_000)),
            (&[("x-stainless-read-timeout", "600"), ("x-stainless-timeout", "2.5")], millis(2250)),
            (&[("x-stainless-timeout", "0")], None),
            (&[("x-stainless-timeout", "NaN")], None),
            (&[("x-stainless-timeout", "0.1")], millis(0)),
            (&[("x-envoy-expected-rq-timeout-ms", "1000")], millis(750)),
            (&[("grpc-timeout", "10S")], millis(9500)),
            (&[("grpc-timeout", "1M")], millis(57_000)),
            (&[("grpc-timeout", "500m")], millis(250)),
            (&[("grpc-timeout", "123456789S")], None),
            (&[("grpc-timeout", "10")], None),
            (&[("amz-sdk-request", "ttl=19941106T085037Z; attempt=1; max=3")], millis(57_000)),
            (&[("amz-sdk-request", "attempt=1;ttl=19941106T084900Z")], millis(0)),
            (&[("amz-sdk-request", "attempt=1; max=3")], None),
            (&[("user-agent", "x")], None),
        ] {
            assert_eq!(client_patience(&headers(lines), now()), wanted, "{lines:?}");
        }
    }

    #[test]
    fn an_sdks_retry_is_told_from_its_first_attempt() {
        for (name, first, retry) in [
            ("x-stainless-retry-count", "0", "1"),
            ("amz-sdk-request", "attempt=1; max=3", "attempt=2; max=3"),
            ("x-envoy-attempt-count", "1", "2"),
            (
                "x-goog-api-client",
                "gl-go/1 gccl-attempt-count/1",
                "gl-go/1 gccl-attempt-count/2 x/1",
            ),
        ] {
            assert!(!is_sdk_retry(&headers(&[(name, first)])), "{name}");
            assert!(is_sdk_retry(&headers(&[(name, retry)])), "{name}");
            assert!(!is_sdk_retry(&headers(&[(name, "x")])), "{name}");
        }
    }

    proptest! {
        #[test]
        fn nothing_a_peer_says_breaks_anything(
            text in "[ -~]{0,40}|[0-9.:;,hmsrt=\"TZ+-]{0,30}|[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]{0,12})?(Z|[+-][0-9]{2}:[0-9]{2})",
        ) {
            let names = [
                &RETRY_AFTER_MS, &header::RETRY_AFTER, &RATE_LIMIT, &RATE_LIMIT_RESET, &X_RESET,
                &X_RESET_TOKENS, &STAINLESS_TIMEOUT, &GRPC_TIMEOUT, &AMZ_REQUEST, &GOOG_CLIENT,
                &header::DATE, &HeaderName::from_static("anthropic-ratelimit-x-reset"),
            ];
            for name in names {
                let map = headers(&[(name.as_str(), &text)]);
                let hint = super::wait(StatusCode::TOO_MANY_REQUESTS, &map, now());
                prop_assert_ne!(hint, Hint::Wait(Duration::ZERO));
                let _patience = client_patience(&map, now());
                let _said = (instructed(&map), is_sdk_retry(&map));
            }
        }
    }
}
