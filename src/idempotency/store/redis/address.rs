//! Where Redis is: the URL of `state.shared`, read once.

use std::fmt;

use percent_encoding::percent_decode_str;

/// Where Redis is, and as whom to go there.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    pub(super) site: Site,
    pub(super) tls: bool,
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
    pub(super) database: i64,
}

/// What answers there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Site {
    /// One server.
    Single(Host),
    /// Whichever server the sentinels call the master of this name.
    Sentinel(Vec<Host>, String),
    /// A cluster, of which these are known.
    Cluster(Vec<Host>),
}

/// A host and its port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Host {
    pub(super) name: String,
    pub(super) port: u16,
}

impl Address {
    /// Reads a URL.
    ///
    /// # Errors
    ///
    /// What is wanted, in words that repeat neither user nor password.
    pub fn parse(url: &str) -> Result<Self, String> {
        let (scheme, rest) = url.split_once("://").ok_or(WANTED)?;
        let (tls, kind) = match scheme {
            "redis" => (false, "single"),
            "rediss" => (true, "single"),
            "redis+sentinel" => (false, "sentinel"),
            "rediss+sentinel" => (true, "sentinel"),
            "redis+cluster" => (false, "cluster"),
            "rediss+cluster" => (true, "cluster"),
            _ => return Err(WANTED.to_owned()),
        };
        // A password may hold anything that is percent-encoded, and an @ that is not.
        let (credentials, rest) = match rest.rsplit_once('@') {
            Some((credentials, rest)) => (Some(credentials), rest),
            None => (None, rest),
        };
        if rest.contains(['?', '#']) {
            return Err("a URL without ? and #".to_owned());
        }
        let (user, password) = credentials.map(read_credentials).transpose()?.unwrap_or_default();
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (site, database) = match kind {
            "single" => (Site::Single(read_host(hosts, REDIS_PORT)?), read_database(path)?),
            "sentinel" => {
                let (master, database) = path.split_once('/').unwrap_or((path, ""));
                if master.is_empty() {
                    return Err(format!("the name of the master, as in {SENTINEL}"));
                }
                let master = decoded(master)?;
                (
                    Site::Sentinel(read_hosts(hosts, SENTINEL_PORT)?, master),
                    read_database(database)?,
                )
            }
            _ if path.is_empty() => (Site::Cluster(read_hosts(hosts, REDIS_PORT)?), 0),
            _ => return Err("no database: a cluster has one only".to_owned()),
        };
        Ok(Self { site, tls, user, password, database })
    }

    pub(super) fn is_cluster(&self) -> bool {
        matches!(self.site, Site::Cluster(_))
    }
}

impl fmt::Display for Address {
    /// The URL without user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secure = if self.tls { "rediss" } else { "redis" };
        match &self.site {
            Site::Single(host) => write!(f, "{secure}://{host}/{}", self.database),
            Site::Sentinel(hosts, master) => {
                write!(f, "{secure}+sentinel://{}/{master}/{}", Hosts(hosts), self.database)
            }
            Site::Cluster(hosts) => write!(f, "{secure}+cluster://{}", Hosts(hosts)),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.contains(':') {
            return write!(f, "[{}]:{}", self.name, self.port);
        }
        write!(f, "{}:{}", self.name, self.port)
    }
}

struct Hosts<'a>(&'a [Host]);

impl fmt::Display for Hosts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, host) in self.0.iter().enumerate() {
            if nth > 0 {
                f.write_str(",")?;
            }
            host.fmt(f)?;
        }
        Ok(())
    }
}

type Credentials = (Option<String>, Option<String>);

/// `user:password`, `:password`, or a user alone.
fn read_credentials(text: &str) -> Result<Credentials, String> {
    let (user, password) = match text.split_once(':') {
        Some((user, password)) => (user, Some(decoded(password)?)),
        None => (text, None),
    };
    let user = Some(decoded(user)?).filter(|user| !user.is_empty());
    if user.is_some() && password.is_none() {
        return Err("a password with the user: USER:PASSWORD@, or :PASSWORD@".to_owned());
    }
    Ok((user, password.filter(|password| !password.is_empty())))
}

fn decoded(text: &str) -> Result<String, String> {
    let decoded = percent_decode_str(text).decode_utf8();
    Ok(decoded.map_err(|_bytes| "percent-encoding that is UTF-8")?.into_owned())
}

fn read_hosts(text: &str, port: u16) -> Result<Vec<Host>, String> {
    let hosts: Vec<Host> =
        text.split(',').map(|host| read_host(host, port)).collect::<Result<_, _>>()?;
    if hosts.len() > HOSTS_MAX {
        return Err(format!("at most {HOSTS_MAX} hosts"));
    }
    Ok(hosts)
}

fn read_host(text: &str, default_port: u16) -> Result<Host, String> {
    let (name, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (name, after) = rest.split_once(']').ok_or("a ] after an IPv6 address")?;
            name.parse::<std::net::Ipv6Addr>()
                .map_err(|_address| "an IPv6 address between [ and ]")?;
            let port = match after {
                "" => None,
                _ => Some(after.strip_prefix(':').ok_or("a : before the port")?),
            };
            (name, port)
        }
        None => match text.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (text, None),
        },
    };
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ':');
    if name.is_empty() || !name.chars().all(is_name) {
        return Err("a host name or an address".to_owned());
    }
    let port = match port {
        None => default_port,
        Some(text) => match text.parse() {
            Ok(port) if port > 0 => port,
            _ => return Err("a port from 1 to 65535".to_owned()),
        },
    };
    Ok(Host { name: name.to_owned(), port })
}

fn read_database(text: &str) -> Result<i64, String> {
    match text {
        "" => Ok(0),
        _ => match text.parse::<u16>() {
            Ok(database) => Ok(database.into()),
            Err(_) => Err("the number of a database after the /".to_owned()),
        },
    }
}

const WANTED: &str = "redis://[USER:PASSWORD@]HOST[:PORT][/DB], \
     redis+sentinel://[USER:PASSWORD@]HOST[:PORT],.../MASTER[/DB] or \
     redis+cluster://[USER:PASSWORD@]HOST[:PORT],..., each with rediss for TLS";
const SENTINEL: &str = "redis+sentinel://HOST[:PORT],.../MASTER[/DB]";
const REDIS_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;
/// More than anybody lists by hand.
const HOSTS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read() {
        let table = [
            ("redis://h", "redis://h:6379/0"),
            ("redis://h:7/3", "redis://h:7/3"),
            ("redis://h:7/", "redis://h:7/0"),
            ("rediss://user:pw@h", "rediss://h:6379/0"),
            ("redis://:p%40w@h", "redis://h:6379/0"),
            ("redis://[::1]:7", "redis://[::1]:7/0"),
            ("redis://[::1]", "redis://[::1]:6379/0"),
            ("redis+sentinel://a,b:7/mymaster", "redis+sentinel://a:26379,b:7/mymaster/0"),
            ("rediss+sentinel://u:p@a/m/2", "rediss+sentinel://a:26379/m/2"),
            ("redis+cluster://a,b:7", "redis+cluster://a:6379,b:7"),
            ("rediss+cluster://u:p@[::1]:9/", "rediss+cluster://[::1]:9"),
        ];
        for (url, wanted) in table {
            let address = Address::parse(url).unwrap_or_else(|fault| panic!("{url}: {fault}"));
            assert_eq!(address.to_string(), wanted, "{url}");
            assert_eq!(Address::parse(wanted).map(|again| again.site), Ok(address.site), "{url}");
        }
        let address = Address::parse("redis://ann:p%40%3A%2Fw@h").expect("a URL");
        let credentials = (address.user.as_deref(), address.password.as_deref());
        assert_eq!(credentials, (Some("ann"), Some("p@:/w")));
        let address = Address::parse("redis://:a@b/c@h:1/2").expect("a URL");
        assert_eq!((address.user, address.password.as_deref()), (None, Some("a@b/c")));
    }

    #[test]
    fn a_fault_says_what_is_wanted_and_never_the_password() {
        let table = [
            ("localhost:6379", "redis://"),
            ("http://h", "redis+cluster://"),
            ("redis://", "a host name"),
            ("redis://h:0", "a port"),
            ("redis://h:70000", "a port"),
            ("redis://h:x", "a port"),
            ("redis://h/x", "a database"),
            ("redis://h/-1", "a database"),
            ("redis://h/0?x=1", "without ?"),
            ("redis://user@h", "a password"),
            ("redis://[::1", "a ]"),
            ("redis://[zz]:1", "IPv6"),
            ("redis://[::1]7", "a : before"),
            ("redis://::1", "a host name"),
            ("redis://a,b", "a host name"),
            ("redis+sentinel://a,b", "the name of the master"),
            ("redis+sentinel://a,,b/m", "a host name"),
            ("redis+sentinel://a/m/x", "a database"),
            ("redis+cluster://a/1", "no database"),
            ("redis://:%ff@h", "percent-encoding"),
            ("redis+cluster://:hunter2@a/1", "no database"),
        ];
        for (url, wanted) in table {
            let fault = Address::parse(url).expect_err(url);
            assert!(fault.contains(wanted), "{url}: {fault}");
            assert!(!fault.contains("hunter2"), "{url}: {fault}");
        }
        let address = Address::parse("redis://ann:hunter2@h").expect("a URL");
        assert!(!format!("{address:?} {address}").contains("hunter2"));
    }
}
