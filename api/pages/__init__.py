"""The pages: they read and show. Whatever changes something goes through the JSON API, from a form on a page."""

from . import accounts, duplicates, front, imports, launches, lead, leads, mails, ops, people, queue, signing, tracks

PAGES = (front, signing, queue, leads, lead, accounts, imports, duplicates, ops, tracks, launches, mails, people)
