"""`make docs`: write the generated pages of docs/reference."""

from tests.support.reference import FOLDER, PAGES

FOLDER.mkdir(exist_ok=True)
for path, page in PAGES.items():
    path.write_text(page())
