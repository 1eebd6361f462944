//! Expansion of `#[dask::task]`.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::parse::{Parse, ParseStream};
use syn::spanned::Spanned;
use syn::{FnArg, GenericArgument, ItemFn, LitStr, PathArguments, ReturnType, Type};

/// What stands in the attribute's parentheses.
#[derive(Default)]
pub struct Options {
    name: Option<LitStr>,
}

impl Parse for Options {
    fn parse(input: ParseStream<'_>) -> syn::Result<Options> {
        let mut options = Options::default();
        while !input.is_empty() {
            let option: syn::Ident = input.parse()?;
            if option != "name" {
                return Err(syn::Error::new(option.span(), "expected `name = \"...\"`"));
            }
            input.parse::<syn::Token![=]>()?;
            options.name = Some(input.parse()?);
            if !input.is_empty() {
                input.parse::<syn::Token![,]>()?;
            }
        }
        Ok(options)
    }
}

/// The function as a registered task plus a typed call of the same name.
pub fn expand(options: &Options, function: &ItemFn) -> syn::Result<TokenStream> {
    refuse_unsupported(function)?;
    let args = function.sig.inputs.iter().map(Argument::read).collect::<syn::Result<Vec<_>>>()?;
    let ident = &function.sig.ident;
    let visibility = &function.vis;
    let attributes = &function.attrs;
    let name = options.name.as_ref().map_or_else(|| ident.to_string(), LitStr::value);
    let (output, fallible) = output_type(&function.sig.output);

    let names: Vec<_> = args.iter().map(|a| &a.name).collect();
    let owned: Vec<_> = args.iter().map(|a| &a.owned).collect();
    let call = quote! {
        #(#attributes)*
        #visibility fn #ident(#(#names: impl ::dask::IntoArg<#owned>),*) -> ::dask::TaskCall<#output> {
            ::dask::TaskCall::new(#name, ::std::vec![#(::dask::IntoArg::<#owned>::into_arg(#names)),*])
        }
    };
    let run = runner(function, &args, &name, fallible);
    Ok(quote! { #call #run })
}

fn refuse_unsupported(function: &ItemFn) -> syn::Result<()> {
    let signature = &function.sig;
    if let Some(token) = &signature.asyncness {
        return Err(syn::Error::new(token.span(), "native tasks run on threads: a task cannot be async"));
    }
    if !signature.generics.params.is_empty() {
        return Err(syn::Error::new(
            signature.generics.span(),
            "a task is registered by name and cannot be generic: write one task per type",
        ));
    }
    Ok(())
}

/// The hidden function, and its registration.
fn runner(function: &ItemFn, args: &[Argument], name: &str, fallible: bool) -> TokenStream {
    let inputs = &function.sig.inputs;
    let output = &function.sig.output;
    let body = &function.block;
    let count = args.len();
    let slots: Vec<_> = (0..count).map(|i| format_ident!("slot{i}")).collect();
    let values: Vec<_> = (0..count).map(|i| format_ident!("arg{i}")).collect();
    let owned: Vec<_> = args.iter().map(|a| &a.owned).collect();
    let indices: Vec<_> = (0..count).collect();
    let passed = args
        .iter()
        .zip(&values)
        .map(|(arg, value)| if arg.by_reference { quote!(&*#value) } else { quote!(#value.into_owned()) });
    let finish = if fallible {
        quote! {
            match __run(#(#passed),*) {
                ::std::result::Result::Ok(value) => ::std::result::Result::Ok(__private::NativeValue::new(value)),
                ::std::result::Result::Err(error) => {
                    ::std::result::Result::Err(__private::NativeError::Failed(::std::string::ToString::to_string(&error)))
                }
            }
        }
    } else {
        quote! { ::std::result::Result::Ok(__private::NativeValue::new(__run(#(#passed),*))) }
    };
    quote! {
        const _: () = {
            use ::dask::__private;
            fn __run(#inputs) #output #body
            fn __call(
                _context: &__private::TaskContext,
                args: ::std::vec::Vec<__private::ArgSlot>,
            ) -> ::std::result::Result<__private::NativeValue, __private::NativeError> {
                let [#(#slots),*]: [__private::ArgSlot; #count] = args.try_into().map_err(
                    |args: ::std::vec::Vec<__private::ArgSlot>| __private::NativeError::ArgumentCount {
                        function: #name,
                        expected: #count,
                        found: args.len(),
                    },
                )?;
                #(let #values = __private::Arg::<#owned>::from_slot(#name, #indices, #slots)?;)*
                #finish
            }
            __private::inventory::submit! {
                __private::NativeFunction {
                    name: #name,
                    location: ::std::concat!(::std::file!(), ":", ::std::line!()),
                    call: __call,
                }
            }
        };
    }
}

/// One argument: its name, the owned type that travels, and how the function takes it.
struct Argument {
    name: syn::Ident,
    owned: TokenStream,
    by_reference: bool,
}

impl Argument {
    fn read(input: &FnArg) -> syn::Result<Argument> {
        let FnArg::Typed(typed) = input else {
            return Err(syn::Error::new(input.span(), "a task is a plain function and has no `self`"));
        };
        let syn::Pat::Ident(pattern) = &*typed.pat else {
            return Err(syn::Error::new(typed.pat.span(), "give this argument a plain name"));
        };
        let (owned, by_reference) = owned_type(&typed.ty)?;
        Ok(Argument { name: pattern.ident.clone(), owned, by_reference })
    }
}

fn owned_type(ty: &Type) -> syn::Result<(TokenStream, bool)> {
    let Type::Reference(reference) = ty else {
        return Ok((quote!(#ty), false));
    };
    if reference.mutability.is_some() {
        return Err(syn::Error::new(ty.span(), "results are shared between tasks and cannot be taken by `&mut`"));
    }
    let inner = &*reference.elem;
    let owned = match inner {
        Type::Slice(slice) => {
            let element = &slice.elem;
            quote!(::std::vec::Vec<#element>)
        }
        Type::Path(path) if path.path.is_ident("str") => quote!(::std::string::String),
        other => quote!(#other),
    };
    Ok((owned, true))
}

/// The type of the task's value, and whether the function returns it in a `Result`.
fn output_type(output: &ReturnType) -> (TokenStream, bool) {
    let ReturnType::Type(_, ty) = output else {
        return (quote!(()), false);
    };
    if let Type::Path(path) = &**ty
        && let Some(last) = path.path.segments.last()
        && last.ident == "Result"
        && let PathArguments::AngleBracketed(generics) = &last.arguments
        && let Some(GenericArgument::Type(value)) = generics.args.first()
    {
        return (quote!(#value), true);
    }
    (quote!(#ty), false)
}
