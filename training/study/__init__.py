"""The papers' user studies: a page that asks people, and what their answers say."""
