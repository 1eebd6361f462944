//! The `#[dask::task]` attribute: turns a function into a native task.
//!
//! Use it through the `dask` crate, whose documentation has the examples.

mod task;

use proc_macro::TokenStream;

/// Registers a function as a native task and replaces it by a typed call of the same name.
///
/// The call takes, for each argument, a value or a future of that type, and gives a `TaskCall` to submit. Arguments
/// taken by reference (`&Image`, `&str`, `&[f64]`) are shared with other tasks of the worker instead of cloned. A
/// function that returns `Result` gives a task that errs.
///
/// `#[dask::task(name = "resize_v2")]` registers it under another name than its own.
#[proc_macro_attribute]
pub fn task(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let options = syn::parse_macro_input!(attribute as task::Options);
    let function = syn::parse_macro_input!(item as syn::ItemFn);
    task::expand(&options, &function).unwrap_or_else(syn::Error::into_compile_error).into()
}
