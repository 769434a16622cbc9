//! What samekey answers itself, at `http://samekey.internal/`: whoever gets this is proxied.
//!
//! Asked over https, in a tunnel that was opened, it proves that the CA is trusted as well.
//! Nothing is sent anywhere, no name is looked up, and no secret is told.

use std::path::PathBuf;

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName,
    HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use http::{Method, StatusCode};
use maud::{DOCTYPE, PreEscaped, html};
use serde_json::json;

use crate::exchange::{Body, Response, Scheme, query};
use crate::intercept::{Environment, Format, OWN_HOST, Own, published};
use crate::proxy::sheet::{POLICY, STYLE};

/// What samekey tells of itself.
#[derive(Clone, Debug)]
pub struct About {
    /// Where programs are pointed at, without a user.
    pub proxy_url: String,
    /// What listens where, in words.
    pub listeners: Vec<String>,
    /// The folder of what programs read.
    pub public: PathBuf,
    /// The CA's certificate, PEM.
    pub ca_pem: String,
    /// The SHA-256 of the CA's certificate, in hex.
    pub ca_digest: String,
}

/// What was asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question<'a> {
    pub(super) method: &'a Method,
    pub(super) path: &'a str,
    pub(super) query: Option<&'a str>,
    /// `https` where the client's TLS was opened here.
    pub(super) scheme: Scheme,
    /// Whether a browser asks.
    pub(super) html: bool,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Said {
    Text {
        status: StatusCode,
        kind: &'static str,
        text: String,
    },
    /// A file of the public folder.
    File {
        name: &'static str,
        kind: &'static str,
    },
}

/// Answers; a file that cannot be read is told as missing.
pub(super) async fn answer(about: &About, question: Question<'_>) -> Response {
    let said = say(about, question);
    let (status, kind, body, file) = match said {
        Said::Text { status, kind, text } => (status, kind, Bytes::from(text), None),
        Said::File { name, kind } => match published(&about.public, name).await {
            Ok(bytes) => (StatusCode::OK, kind, Bytes::from(bytes), Some(name)),
            Err(error) => {
                tracing::warn!(dir = %about.public.display(), name, %error, "it cannot be read");
                let text = Bytes::from_static(b"this file is not in state.public any more\n");
                (StatusCode::NOT_FOUND, TEXT, text, None)
            }
        },
    };
    let mut response = Response::new(status, Body::full(body));
    let headers = &mut response.headers;
    for (name, value) in FIELDS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if let Ok(policy) = HeaderValue::from_str(&POLICY) {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    let name = file.or_else(|| (kind == PEM).then_some("ca.pem"));
    let kept = name.map(|name| HeaderValue::from_str(&format!("attachment; filename={name}")));
    if let Some(Ok(kept)) = kept {
        headers.insert(CONTENT_DISPOSITION, kept);
    }
    response
}

fn say(about: &About, question: Question<'_>) -> Said {
    if !matches!(*question.method, Method::GET | Method::HEAD) {
        let text = "only GET and HEAD are answered here\n".to_owned();
        return Said::Text { status: StatusCode::METHOD_NOT_ALLOWED, kind: TEXT, text };
    }
    match question.path {
        "/" if question.html => good(HTML, page(about, question.scheme)),
        "/" => good(TEXT, plain(about, question.scheme)),
        "/check" => good(JSON, check(about, question.scheme)),
        "/ca.pem" => good(PEM, about.ca_pem.clone()),
        "/bundle.pem" => Said::File { name: "bundle.pem", kind: PEM },
        "/truststore.p12" => Said::File { name: "truststore.p12", kind: P12 },
        "/env" => env(about, question.query),
        _ => {
            let text = format!("there is nothing here; there is {}\n", PATHS.join(" "));
            Said::Text { status: StatusCode::NOT_FOUND, kind: TEXT, text }
        }
    }
}

fn good(kind: &'static str, text: String) -> Said {
    Said::Text { status: StatusCode::OK, kind, text }
}

fn env(about: &About, asked: Option<&str>) -> Said {
    let wanted = query::values(asked, "format").next();
    let format = match wanted.as_deref() {
        None | Some(b"shell") => Format::Shell,
        Some(b"dotenv") => Format::Dotenv,
        Some(b"k8s") => Format::Kubernetes,
        Some(b"java") => Format::Java,
        Some(_) => {
            let text = "format: has to be shell, dotenv, k8s or java\n".to_owned();
            return Said::Text { status: StatusCode::BAD_REQUEST, kind: TEXT, text };
        }
    };
    good(TEXT, Environment::new(&about.proxy_url, &about.public, Own::default()).written(format))
}

fn check(about: &About, scheme: Scheme) -> String {
    let said = json!({
        "proxied": true,
        "tls": scheme == Scheme::Https,
        "version": VERSION,
        "ca_sha256": about.ca_digest,
        "proxy": about.proxy_url,
        "public": about.public.to_string_lossy(),
    });
    format!("{said}\n")
}

fn way(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::Https => "This was asked over https: the CA is trusted.",
        Scheme::Http => {
            "This was asked over http. Whether the CA is trusted shows at https://samekey.internal/"
        }
    }
}

fn plain(about: &About, scheme: Scheme) -> String {
    let listeners = about.listeners.join("\n  ");
    let paths = PATHS.map(|path| format!("http://{OWN_HOST}{path}")).join("\n  ");
    format!(
        "You are proxied through samekey {VERSION}.\n{}\n\nlisteners:\n  {listeners}\nCA, \
         SHA-256:\n  {}\nto be had here:\n  {paths}\n",
        way(scheme),
        about.ca_digest,
    )
}

fn page(about: &About, scheme: Scheme) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "samekey" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                main {
                    h1 { "You are proxied through samekey " (VERSION) }
                    p { (way(scheme)) }
                    @if scheme == Scheme::Http {
                        p { a href=(format!("https://{OWN_HOST}/")) { "Ask over https" } }
                    }
                    dl {
                        @for listener in &about.listeners {
                            dt { "listens" } dd { (listener) }
                        }
                        dt { "CA, SHA-256" } dd { code { (about.ca_digest) } }
                    }
                    h2 { "To trust its CA" }
                    ul {
                        li { a href="/ca.pem" { "ca.pem" } ": the certificate alone" }
                        li { a href="/bundle.pem" { "bundle.pem" } ": with the system's roots" }
                        li { a href="/truststore.p12" { "truststore.p12" } ": the same for Java" }
                    }
                    h2 { "To point a program here" }
                    p { "On the machine that it runs on, as " a href="/env" { "shell" } ", "
                        a href="/env?format=dotenv" { "dotenv" } ", "
                        a href="/env?format=k8s" { "Kubernetes" } " or "
                        a href="/env?format=java" { "Java options" } "; what is wrong is told by "
                        code { "samekey doctor" } "." }
                }
            }
        }
    };
    page.into_string()
}

const VERSION: &str = env!("CARGO_PKG_VERSION");
const PATHS: [&str; 6] = ["/", "/check", "/ca.pem", "/bundle.pem", "/truststore.p12", "/env"];
const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";
const PEM: &str = "application/x-pem-file";
const P12: &str = "application/x-pkcs12";

/// No page elsewhere reads what stands here, and no cache keeps it.
const FIELDS: [(HeaderName, &str); 4] = [
    (CACHE_CONTROL, "no-store"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn about() -> About {
        About {
            proxy_url: "http://127.0.0.1:8080".to_owned(),
            listeners: vec!["forward proxy on <127.0.0.1:8080>".to_owned()],
            public: PathBuf::from("/nowhere/public"),
            ca_pem: "-----BEGIN CERTIFICATE-----\n".to_owned(),
            ca_digest: "ab".repeat(32),
        }
    }

    fn ask(method: &Method, target: &str, html: bool) -> Said {
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        say(&about(), Question { method, path, query, scheme: Scheme::Https, html })
    }

    #[test]
    fn each_path_says_what_it_holds() {
        for (target, html, status, kind, words) in [
            ("/", false, 200, TEXT, "You are proxied through samekey "),
            ("/", true, 200, HTML, "<h1>You are proxied through samekey "),
            ("/", true, 200, HTML, "forward proxy on &lt;127.0.0.1:8080&gt;"),
            ("/check", true, 200, JSON, r#""tls":true"#),
            ("/ca.pem", false, 200, PEM, "-----BEGIN CERTIFICATE-----\n"),
            ("/env", false, 200, TEXT, "export HTTPS_PROXY='http://127.0.0.1:8080'\n"),
            ("/env?format=shell", false, 200, TEXT, "export SSL_CERT_FILE='/nowhere/public/bundle"),
            ("/env?a=b&format=dotenv", false, 200, TEXT, "HTTPS_PROXY=http://127.0.0.1:8080\n"),
            ("/env?format=k8s", false, 200, TEXT, "- name: HTTPS_PROXY\n"),
            ("/env?format=java", false, 200, TEXT, "-Dhttps.proxyPort=8080\n"),
            ("/env?format=xml", false, 400, TEXT, "format: has to be shell, dotenv, k8s or java"),
            ("/nothing", true, 404, TEXT, "there is nothing here; there is / /check"),
            ("/check/", false, 404, TEXT, "there is nothing here"),
        ] {
            let Said::Text { status: got, kind: of, text } = ask(&Method::GET, target, html) else {
                panic!("{target} is a file");
            };
            assert_eq!((got.as_u16(), of), (status, kind), "{target}");
            assert!(text.contains(words), "{target}: {text}");
        }
        let bundle = Said::File { name: "bundle.pem", kind: PEM };
        assert_eq!(ask(&Method::HEAD, "/bundle.pem", false), bundle);
        for method in [Method::POST, Method::DELETE, Method::OPTIONS] {
            let Said::Text { status, .. } = ask(&method, "/", false) else { panic!("a file") };
            assert_eq!(status, 405, "{method}");
        }
    }

    #[tokio::test]
    async fn a_file_that_is_gone_is_not_found() {
        let question = Question {
            method: &Method::GET,
            path: "/bundle.pem",
            query: None,
            scheme: Scheme::Http,
            html: false,
        };
        let response = answer(&about(), question).await;
        assert_eq!(response.status, 404);
        assert_eq!(response.headers[CACHE_CONTROL], "no-store");
    }
}
