//! Gives the shared library its name: the whole version, because there is no ABI promise before 1.0.

fn main() {
    let version = env!("CARGO_PKG_VERSION");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libnetstack.so.{version}");
    println!("cargo::rerun-if-changed=build.rs");
}
