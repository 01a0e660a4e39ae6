//! Opens a page in headless Chromium.
