"""The pages: they read and show. Whatever changes something goes through the JSON API, from a form on a page."""

from . import front, lead, queue, signing

PAGES = (front, signing, queue, lead)
