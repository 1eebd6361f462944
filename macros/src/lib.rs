//! The `#[dask::task]` attribute: turns a function into a native task.
//!
//! Use it through the `dask` crate, whose documentation has the examples.

mod task;

use proc_macro::TokenStream;

/// Registers a function as a native task and replaces it by a typed call of the same name.
///
/// The call takes, for each argument, a value or a future of that type (or a collection with futures in it), and gives a
/// `TaskCall` to submit. How the function takes an argument decides whether it is copied:
///
/// - `&Image`, `&str`, `&[f64]`, `Arc<Image>`: shared with other tasks of the worker;
/// - `&[Arc<Image>]`, `Vec<Arc<Image>>`: many results, each of them shared;
/// - `Image`: the task's own, cloned if others hold it too.
///
/// An argument of type `&TaskContext` is no part of the call: the worker passes it. A function that returns `Result` gives
/// a task that errs; one that returns `Arc<T>` gives a `T`. An `async fn` runs on the worker's runtime, driven by the thread
/// that the task occupies; when the task is cancelled it is dropped where it waits.
///
/// `#[dask::task(name = "resize_v2")]` registers it under another name than its own.
///
/// `#[dask::task(brief)]` is for a function that takes microseconds and never waits, neither for a lock nor for a file: it runs where
/// its worker decides, which saves two changes of threads, and holds up the worker meanwhile. One that takes longer than a millisecond
/// three times in a row, or a tenth of a second once, is told of in the log and runs in threads from then on. Tasks of a library that
/// a worker loads run in threads always.
#[proc_macro_attribute]
pub fn task(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let options = syn::parse_macro_input!(attribute as task::Options);
    let function = syn::parse_macro_input!(item as syn::ItemFn);
    task::expand(&options, &function).unwrap_or_else(syn::Error::into_compile_error).into()
}
