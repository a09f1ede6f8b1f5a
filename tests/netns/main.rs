//! Tests on the real kernel, in network namespaces of their own. They need root: without it they say so and
//! do nothing, but with `CI=true` they fail.

mod capture;
mod place;
mod traffic;
