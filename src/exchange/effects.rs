//! Which requests of a route create or change something.

use http::Method;

/// Which requests of a route have an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effects {
    /// POST and PATCH.
    ByMethod,
    /// All.
    All,
    /// None.
    Nothing,
}

impl Effects {
    /// Whether a request with this method is one of them.
    pub fn hold(self, method: &Method) -> bool {
        match self {
            Self::ByMethod => matches!(*method, Method::POST | Method::PATCH),
            Self::All => true,
            Self::Nothing => false,
        }
    }
}
