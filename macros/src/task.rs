//! Expansion of `#[dask::task]`.

use proc_macro2::{Delimiter, Span, TokenStream, TokenTree};
use quote::{format_ident, quote, quote_spanned};
use syn::parse::{Parse, ParseStream};
use syn::spanned::Spanned;
use syn::{FnArg, GenericArgument, ItemFn, LitStr, PathArguments, ReturnType, Type};

/// What stands in the attribute's parentheses.
#[derive(Default)]
pub struct Options {
    name: Option<LitStr>,
    brief: bool,
}

impl Parse for Options {
    fn parse(input: ParseStream<'_>) -> syn::Result<Options> {
        let mut options = Options::default();
        while !input.is_empty() {
            let option: syn::Ident = input.parse()?;
            if option == "brief" {
                options.brief = true;
            } else if option == "name" {
                input.parse::<syn::Token![=]>()?;
                options.name = Some(input.parse()?);
            } else {
                return Err(syn::Error::new(option.span(), "expected `name = \"...\"` or `brief`"));
            }
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
    let parameters = function.sig.inputs.iter().map(Parameter::read).collect::<syn::Result<Vec<_>>>()?;
    let args: Vec<_> = parameters.iter().filter_map(Parameter::argument).collect();
    let ident = &function.sig.ident;
    let visibility = &function.vis;
    let attributes = &function.attrs;
    let name = options.name.as_ref().map_or_else(|| ident.to_string(), LitStr::value);
    let output = Output::read(&function.sig.output);
    let value = &output.value;

    let signature = signature(&args, value);
    let names: Vec<_> = args.iter().map(|a| &a.name).collect();
    let owned: Vec<_> = args.iter().map(|a| &a.owned).collect();
    let call = quote! {
        #(#attributes)*
        #visibility fn #ident(#(#names: impl ::dask::IntoArg<#owned>),*) -> ::dask::TaskCall<#value> {
            static DEFINITION: ::dask::__private::Definition = ::dask::__private::Definition::new(#name, #signature);
            ::dask::TaskCall::defined(&DEFINITION, ::std::vec![#(::dask::IntoArg::<#owned>::into_arg(#names)),*])
        }
    };
    if let (true, Some(token)) = (options.brief, &function.sig.asyncness) {
        return Err(syn::Error::new(token.span(), "a brief task never waits and cannot be async"));
    }
    let run = runner(function, &parameters, (&name, &signature), options.brief, &output);
    Ok(quote! { #call #run })
}

fn refuse_unsupported(function: &ItemFn) -> syn::Result<()> {
    let signature = &function.sig;
    if let Some(token) = &signature.unsafety {
        return Err(syn::Error::new(token.span(), "a task is called by the worker and cannot be unsafe"));
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
fn runner(
    function: &ItemFn,
    parameters: &[Parameter],
    (name, signature): (&str, &str),
    is_brief: bool,
    output: &Output,
) -> TokenStream {
    let (inputs, result, body) = (&function.sig.inputs, &function.sig.output, &function.block);
    let asyncness = &function.sig.asyncness;
    let args: Vec<_> = parameters.iter().filter_map(Parameter::argument).collect();
    let count = args.len();
    let slots: Vec<_> = (0..count).map(|i| format_ident!("slot{i}")).collect();
    let values: Vec<_> = (0..count).map(|i| format_ident!("arg{i}")).collect();
    let reads = args.iter().zip(&values).zip(&slots).enumerate().map(|(index, ((arg, value), slot))| {
        let element = &arg.element;
        // The type's own place in the source, so that the compiler complains there.
        match arg.passing {
            Passing::Owned | Passing::Reference => {
                quote_spanned! {arg.span=> let #value = __private::Arg::<#element>::from_slot(#name, #index, #slot)?; }
            }
            Passing::Share => {
                quote_spanned! {arg.span=> let #value = __private::Arg::<#element>::shared(#name, #index, #slot)?; }
            }
            Passing::Shares | Passing::SharesByReference => {
                quote_spanned! {arg.span=> let #value = __private::Arg::<#element>::shared_list(#name, #index, #slot)?; }
            }
        }
    });
    let mut remaining = args.iter().zip(&values);
    let passed = parameters.iter().map(|parameter| match parameter {
        Parameter::Context => quote!(&__context),
        Parameter::OwnedContext => quote!(__context.clone()),
        Parameter::Argument(_) => {
            let (arg, value) = remaining.next().expect("a value for each argument");
            match arg.passing {
                Passing::Owned => quote_spanned!(arg.span=> #value.into_owned()),
                Passing::Reference => quote!(&*#value),
                Passing::SharesByReference => quote!(&#value),
                Passing::Share | Passing::Shares => quote!(#value),
            }
        }
    });
    let called =
        if asyncness.is_some() { quote!(_context.block_on(__run(#(#passed),*))?) } else { quote!(__run(#(#passed),*)) };
    let kept = if output.shared { quote!(shared) } else { quote!(new) };
    let finish = if output.fallible {
        quote! {
            match #called {
                ::std::result::Result::Ok(value) => ::std::result::Result::Ok(__private::NativeValue::#kept(value)),
                ::std::result::Result::Err(error) => {
                    ::std::result::Result::Err(__private::NativeError::Failed(::std::string::ToString::to_string(&error)))
                }
            }
        }
    } else {
        quote! { ::std::result::Result::Ok(__private::NativeValue::#kept(#called)) }
    };
    let wants_context = parameters.iter().any(|it| matches!(it, Parameter::Context | Parameter::OwnedContext));
    let brief =
        if is_brief { quote!(::std::option::Option::Some(&BRIEF)) } else { quote!(::std::option::Option::None) };
    let watch = is_brief.then(|| {
        quote!(
            static BRIEF: __private::Brief = __private::Brief::new();
        )
    });
    let context = wants_context.then(|| quote!(let __context = ::dask::TaskContext::from(_context.clone());));
    quote! {
        const _: () = {
            use ::dask::__private;
            static DEFINITION: __private::Definition = __private::Definition::new(#name, #signature);
            #watch
            #asyncness fn __run(#inputs) #result #body
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
                #(#reads)*
                #context
                #finish
            }
            __private::inventory::submit! {
                __private::NativeFunction::new(
                    &DEFINITION,
                    ::std::concat!(::std::file!(), ":", ::std::line!()),
                    __call,
                    #brief,
                )
            }
        };
    }
}

/// The types that travel, by their last names: what two sides built from one source have alike, wherever they are.
fn signature(args: &[&Argument], value: &TokenStream) -> String {
    let args: Vec<String> = args.iter().map(|arg| short(&arg.owned)).collect();
    format!("({}) -> {}", args.join(", "), short(value))
}

/// A type as it is usually written: without the paths before its names.
fn short(ty: &TokenStream) -> String {
    let mut text = String::new();
    let mut tokens: Vec<String> = Vec::new();
    flatten(ty.clone(), &mut tokens);
    let mut index = 0;
    while let Some(token) = tokens.get(index) {
        let path_goes_on =
            |at: usize| tokens.get(at).is_some_and(|it| it == ":") && tokens.get(at + 1).is_some_and(|it| it == ":");
        if path_goes_on(index) {
            index += 2; // a leading `::`
            continue;
        }
        if path_goes_on(index + 1) {
            index += 3; // a part of a path that is not its last
            continue;
        }
        text.push_str(token);
        if token == "," || token == ";" || token == "dyn" || token == "mut" || token == "const" {
            text.push(' ');
        }
        index += 1;
    }
    text
}

fn flatten(tokens: TokenStream, out: &mut Vec<String>) {
    for token in tokens {
        match token {
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::None => ("", ""),
                };
                out.push(open.to_owned());
                flatten(group.stream(), out);
                out.push(close.to_owned());
            }
            other => out.push(other.to_string()),
        }
    }
}

/// One parameter of the function.
enum Parameter {
    /// `&TaskContext`
    Context,
    /// `TaskContext`
    OwnedContext,
    Argument(Argument),
}

impl Parameter {
    fn read(input: &FnArg) -> syn::Result<Parameter> {
        let FnArg::Typed(typed) = input else {
            return Err(syn::Error::new(input.span(), "a task is a plain function and has no `self`"));
        };
        match &*typed.ty {
            Type::Reference(reference) if is_named(&reference.elem, "TaskContext") => Ok(Parameter::Context),
            ty if is_named(ty, "TaskContext") => Ok(Parameter::OwnedContext),
            ty => {
                let syn::Pat::Ident(pattern) = &*typed.pat else {
                    return Err(syn::Error::new(typed.pat.span(), "give this argument a plain name"));
                };
                Argument::read(pattern.ident.clone(), ty).map(Parameter::Argument)
            }
        }
    }

    fn argument(&self) -> Option<&Argument> {
        match self {
            Parameter::Context | Parameter::OwnedContext => None,
            Parameter::Argument(argument) => Some(argument),
        }
    }
}

/// One argument of the call.
struct Argument {
    name: syn::Ident,
    /// The type that travels.
    owned: TokenStream,
    /// The type that is read from a slot: the travelling one, or for lists of shares that of their elements.
    element: TokenStream,
    passing: Passing,
    span: Span,
}

/// How a function takes an argument.
#[derive(Clone, Copy)]
enum Passing {
    /// `T`
    Owned,
    /// `&T`
    Reference,
    /// `Arc<T>`
    Share,
    /// `Vec<Arc<T>>`
    Shares,
    /// `&[Arc<T>]`
    SharesByReference,
}

impl Argument {
    fn read(name: syn::Ident, ty: &Type) -> syn::Result<Argument> {
        let (owned, element, passing) = how_passed(ty)?;
        Ok(Argument { name, owned, element, passing, span: ty.span() })
    }
}

fn how_passed(ty: &Type) -> syn::Result<(TokenStream, TokenStream, Passing)> {
    let list_of = |element: &Type| quote!(::std::vec::Vec<#element>);
    let Type::Reference(reference) = ty else {
        if let Some(shared) = generic_of(ty, "Arc") {
            return Ok((quote!(#shared), quote!(#shared), Passing::Share));
        }
        if let Some(shared) = generic_of(ty, "Vec").and_then(|element| generic_of(element, "Arc")) {
            return Ok((list_of(shared), quote!(#shared), Passing::Shares));
        }
        return Ok((quote!(#ty), quote!(#ty), Passing::Owned));
    };
    if reference.mutability.is_some() {
        return Err(syn::Error::new(ty.span(), "results are shared between tasks and cannot be taken by `&mut`"));
    }
    let inner = &*reference.elem;
    let owned = match inner {
        Type::Slice(slice) => {
            if let Some(shared) = generic_of(&slice.elem, "Arc") {
                return Ok((list_of(shared), quote!(#shared), Passing::SharesByReference));
            }
            list_of(&slice.elem)
        }
        Type::Path(path) if path.path.is_ident("str") => quote!(::std::string::String),
        other => quote!(#other),
    };
    Ok((owned.clone(), owned, Passing::Reference))
}

fn is_named(ty: &Type, name: &str) -> bool {
    matches!(ty, Type::Path(path) if path.path.segments.last().is_some_and(|last| last.ident == name))
}

/// The first generic argument of a type of this name.
fn generic_of<'a>(ty: &'a Type, name: &str) -> Option<&'a Type> {
    let Type::Path(path) = ty else { return None };
    let last = path.path.segments.last().filter(|last| last.ident == name)?;
    let PathArguments::AngleBracketed(generics) = &last.arguments else { return None };
    generics.args.iter().find_map(|argument| if let GenericArgument::Type(ty) = argument { Some(ty) } else { None })
}

/// What a function returns.
struct Output {
    /// The type of the task's value.
    value: TokenStream,
    /// Whether it comes in a `Result`.
    fallible: bool,
    /// Whether it comes in an `Arc`.
    shared: bool,
}

impl Output {
    fn read(output: &ReturnType) -> Output {
        let ReturnType::Type(_, ty) = output else {
            return Output { value: quote!(()), fallible: false, shared: false };
        };
        let (ty, fallible) = generic_of(ty, "Result").map_or((&**ty, false), |value| (value, true));
        let (ty, shared) = generic_of(ty, "Arc").map_or((ty, false), |value| (value, true));
        Output { value: quote!(#ty), fallible, shared }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signature_of(function: &str) -> String {
        let function: ItemFn = syn::parse_str(function).expect("a function");
        let parameters: Vec<_> = function.sig.inputs.iter().map(|it| Parameter::read(it).expect("supported")).collect();
        let args: Vec<_> = parameters.iter().filter_map(Parameter::argument).collect();
        signature(&args, &Output::read(&function.sig.output).value)
    }

    #[test]
    fn signatures_have_the_types_that_travel_without_their_paths() {
        let by_reference = "fn f(image: &crate::Image, sizes: &[u32], name: &str) -> Result<Vec<Image>, Error> {}";
        assert_eq!(signature_of(by_reference), "(Image, Vec<u32>, String) -> Vec<Image>");
        let owned =
            "fn f(c: &TaskContext, a: Arc<Image>, b: std::vec::Vec<u32>, c: String) -> ::std::vec::Vec<my::Image> {}";
        assert_eq!(signature_of(owned), signature_of(by_reference));
        assert_eq!(signature_of("async fn f(pair: (i64, [u8; 4])) {}"), "((i64, [u8; 4])) -> ()");
        assert_eq!(
            signature_of("fn f(m: HashMap<String, Option<f64>>) -> f64 {}"),
            "(HashMap<String, Option<f64>>) -> f64"
        );
    }
}
