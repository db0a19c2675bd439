"""Licences by the names that files give them, and by their own text, as SPDX has them."""

from __future__ import annotations

import re

PLAIN = ("MIT", "ISC", "Zlib", "Unlicense", "0BSD", "NCSA", "X11", "PSF-2.0", "curl", "libpng")

# How people call them, in small letters and without "license"; the identifiers come by themselves.
NAMES = {
    "mit": "MIT",
    "mit (mit)": "MIT",
    "expat": "MIT",
    "apache": "Apache-2.0",
    "apache2": "Apache-2.0",
    "apache 2": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache v2": "Apache-2.0",
    "apache software": "Apache-2.0",
    "apache version 2.0": "Apache-2.0",
    "apache, version 2.0": "Apache-2.0",
    "bsd 2-clause": "BSD-2-Clause",
    "2-clause bsd": "BSD-2-Clause",
    "simplified bsd": "BSD-2-Clause",
    "bsd 3-clause": "BSD-3-Clause",
    "3-clause bsd": "BSD-3-Clause",
    "new bsd": "BSD-3-Clause",
    "modified bsd": "BSD-3-Clause",
    "mozilla public 2.0 (mpl 2.0)": "MPL-2.0",
    "mpl 2.0": "MPL-2.0",
    "boost": "BSL-1.0",
    "boost 1.0": "BSL-1.0",
    "boost software 1.0 (bsl-1.0)": "BSL-1.0",
    "isc": "ISC",
    "isc (iscl)": "ISC",
    "zlib": "Zlib",
    "zlib/libpng": "Zlib",
    "unlicense": "Unlicense",
    "unlicense (unlicense)": "Unlicense",
}

# Debian's BSD-3-clause, and whatever differs by capitals only.
SPELT = {value.lower(): value for value in (*NAMES.values(), *PLAIN)}

# Of GNU's, Debian writes GPL-2+, classifiers write "... v2 or later (GPLv2+)".
GNU = re.compile(r"\b(L?)GPL[- ]?v?([23](?:\.\d)?)(\.0)?(\+|-or-later|[- ]only)?", re.IGNORECASE)

# What is in the text of each, and in no other's; the one that stands first in a file is the file's.
PHRASES = (
    ("LLVM exceptions to the Apache 2.0 License", "Apache-2.0 WITH LLVM-exception"),
    ("Apache License Version 2.0, January 2004", "Apache-2.0"),
    ("Licensed under the Apache License, Version 2.0", "Apache-2.0"),
    ("Mozilla Public License Version 2.0", "MPL-2.0"),
    ("Mozilla Public License, version 2.0", "MPL-2.0"),
    ("GNU LESSER GENERAL PUBLIC LICENSE Version 2.1", "LGPL-2.1"),
    ("GNU LESSER GENERAL PUBLIC LICENSE Version 3", "LGPL-3.0"),
    ("GNU GENERAL PUBLIC LICENSE Version 2", "GPL-2.0"),
    ("GNU GENERAL PUBLIC LICENSE Version 3", "GPL-3.0"),
    ("Boost Software License - Version 1.0", "BSL-1.0"),
    ("This is free and unencumbered software released into the public domain", "Unlicense"),
    ("to any person obtaining a copy of this software and associated documentation files", "MIT"),
    ("Permission to use, copy, modify, and/or distribute this software for any purpose", "ISC"),
    ("Permission to use, copy, modify, and distribute this software for any purpose", "ISC"),
    ("you must not claim that you wrote the original software", "Zlib"),
    ("Redistribution and use in source and binary forms", "BSD"),
)


def of_name(text: str) -> str:
    """The SPDX identifier or expression that a licence is called by; empty: none is meant surely.

    A mere "BSD" or "GPL" is none: there are several.
    """
    text = " ".join(text.split())
    if text.lower() in SPELT or is_expression(text):
        return SPELT.get(text.lower(), text)
    bare = re.sub(r"\b(the|licen[cs]e)\b", "", text.rpartition("::")[2].lower())
    bare = " ".join(bare.split()).replace(" ,", ",")
    if gnu := GNU.search(text):
        return _gnu(gnu, later="or later" in text)
    return NAMES.get(bare) or NAMES.get(bare.replace("-", " "), "")


def is_expression(text: str) -> bool:
    """Whether a text is an SPDX expression: identifiers, AND, OR, WITH and brackets.

    Identifiers are told by their form; GNU's without -only or -or-later are left to be mended.
    """
    words = re.sub(r"[()]", " ", text).split()
    names = [word for word in words if word not in ("AND", "OR", "WITH")]
    return bool(names) and all(_is_identifier(name) for name in names)


def _is_identifier(name: str) -> bool:
    if re.fullmatch(r"[AL]?GPL-.*", name):
        return name.endswith(("-only", "-or-later"))
    formed = re.fullmatch(r"[A-Za-z][A-Za-z0-9]*(-[A-Za-z0-9.]+)+", name)
    known = re.search(r"\d|exception|^LicenseRef-", name)
    return name in PLAIN or bool(formed and known)


def _gnu(found: re.Match[str], *, later: bool) -> str:
    number = found[2] if "." in found[2] else f"{found[2]}.0"
    kept = "or-later" if later or found[4] in ("+", "-or-later") else "only"
    return f"{found[1].upper()}GPL-{number}-{kept}"


def of_text(text: str, *, later: bool = False) -> str:
    """The SPDX identifier of a licence by its text; empty: it is none of the well-known.

    :param later: whether the sources say "or any later version", which GNU's own text leaves open.
    """
    if named := re.search(r"SPDX-License-Identifier:\s*(\S.*)", text):
        return of_name(named[1])
    words = _words(text)
    places = [(words.find(_words(phrase)), name) for phrase, name in PHRASES]
    _, name = min(((at, name) for at, name in places if at >= 0), default=(0, ""))
    if name == "BSD":
        return "BSD-3-Clause" if "endorse or promote products" in words else "BSD-2-Clause"
    if name.startswith(("GPL", "LGPL")):
        return f"{name}-{'or-later' if later else 'only'}"
    return name


def _words(text: str) -> str:
    """A text in small letters, without what comments and markup put around it."""
    return " ".join(re.sub(r"[#*>=_\"'`]|^\s*(//|;+|--)", " ", text.lower()).split())
