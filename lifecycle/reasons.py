"""Why sales gives a lead back, how it tried to reach it, and what it found out: closed vocabularies."""

from enum import StrEnum


class Reason(StrEnum):
    """Why a lead is rejected or returned; each has its own path in the agreement's `recycle`."""

    UNABLE_TO_REACH = "unable_to_reach"
    INACCURATE_DATA = "inaccurate_data"
    NO_BANT = "no_bant"
    NO_FIT = "no_fit"


class Bant(StrEnum):
    """Budget, authority, need, timeline: what a rep must find to call a lead qualified."""

    BUDGET = "budget"
    AUTHORITY = "authority"
    NEED = "need"
    TIMELINE = "timeline"


class Channel(StrEnum):
    """By which way a rep tried to reach a lead."""

    CALL = "call"
    EMAIL = "email"
    MESSAGE = "message"
    MEETING = "meeting"


class Outcome(StrEnum):
    """What came of one attempt."""

    NO_ANSWER = "no_answer"
    LEFT_VOICEMAIL = "left_voicemail"
    BAD_CONTACT = "bad_contact"
    CONNECTED = "connected"


class Verdict(StrEnum):
    """How an opportunity ended."""

    WON = "won"
    LOST = "lost"
