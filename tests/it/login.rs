//! People log in at the stand-in's OAuth server, come back, work, and log out.

mod attempts;
mod bounds;
mod flow;
mod logout;
mod oidc;
mod safety;
mod ui;
