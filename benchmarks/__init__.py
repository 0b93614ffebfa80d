"""One script a question: what does it cost? Run them from the root of the repository; README.md lists them."""
