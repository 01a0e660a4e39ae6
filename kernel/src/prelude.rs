use thalweg::prelude::*;
#[doc(hidden)]
pub trait ShownAsDebug { fn evcxr_display(&self); }
impl<T: std::fmt::Debug> ShownAsDebug for T {
    fn evcxr_display(&self) {
        let text = format!("{self:?}");
        if text != "()" { println!("EVCXR_BEGIN_CONTENT text/plain\n{text}\nEVCXR_END_CONTENT"); }
    }
}
// evcxr prints an error that leaves a cell through `?` with exactly these words; the kernel must know it from text.
#[doc(hidden)]
macro_rules! eprintln {
    ("{:?}", $error:ident) => {
        match std::env::var("THALWEG_DISPLAY") {
            Ok(mark) => {
                // Every character as JSON's escape: no message can end the string.
                let json = |text: String| text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect::<String>();
                let (kind, message) = (std::any::type_name_of_val(&$error).to_owned(), format!("{:?}", $error));
                println!("{mark}{{\"returned\":{{\"kind\":\"{}\",\"message\":\"{}\"}}}}", json(kind), json(message));
            }
            Err(_) => std::eprintln!("{:?}", $error),
        }
    };
    ($($words:tt)*) => { std::eprintln!($($words)*) };
}
// What a first cell would wait for happens at the start: inference through the library and tch, and the second build
// that evcxr makes where `?` is used for the first time. Nothing of this runs.
let kernel_warm_up = {
    let first_look = |model: &Model| -> thalweg::anyhow::Result<()> {
        let tokens = model.tokens("")?;
        let run = model.run(&tokens, &Plan::new().cache(Point::ResidPost))?;
        let lens = logit_lens(model, &run.cache, model.token("")?)?;
        heatmap(&lens)?.evcxr_display();
        Ok(())
    };
    std::mem::size_of_val(&first_look)
};
"0".parse::<usize>()?;
drop(kernel_warm_up);
