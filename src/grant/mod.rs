//! The grants: client credentials, JWT bearer, closures and fixed tokens.

mod client_credentials;
mod fixed;
#[cfg(feature = "jwt")]
mod jwt_bearer;

pub(crate) use self::client_credentials::Required;
#[cfg(feature = "jwt")]
pub use self::jwt_bearer::{JwtBearer, JwtBearerBuilder};
pub use self::{
    client_credentials::{ClientCredentials, ClientCredentialsBuilder},
    fixed::{SourceFn, StaticToken, source_fn},
};
