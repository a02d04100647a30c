"""What people write in a column called modality -> the DICOM code that steers how pixels are shown."""

from __future__ import annotations

import re

# Defined terms of Modality (0008,0060), PS3.3 C.7.3.1.1.1, retired ones included; objects without pixels too,
# because an image may be derived from them.
_TERMS = (
    "AR ASMT AU BDUS BI BMD CD CF CP CR CS CT CTPROTOCOL DD DF DG DM DMS DOC DS DX EC ECG EEG EMG EOG EPS ES FA"
    " FID FS GM HC HD IO IOL IVOCT IVUS KER KO LEN LP LS M3D MA MG MR MS NM OAM OCT OP OPM OPR OPT OPTBSV OPTENF"
    " OPV OSS OT PA PLAN POS PR PT PX REG RESP RF RG RTDOSE RTIMAGE RTINTENT RTPLAN RTRAD RTRECORD RTSEGANN"
    " RTSTRUCT RWV SEG SM SMR SR SRF ST STAIN TEXTUREMAP TG US VA VF VIDD XA XAPROTOCOL XC XRF"
)
CODES = frozenset(_TERMS.split())
_WORDS = {
    "CR": ("computed radiography",),
    "CT": ("computed tomography", "computed tomogram", "computerized tomography", "computerised tomography",
           "cat", "hrct", "ldct", "cect", "ncct", "cta", "cbct", "mdct", "msct", "ct angiography"),
    "DX": ("xr", "cxr", "xray", "x ray", "radiograph", "radiography", "radiogram", "plain film",
           "plain radiograph", "plain radiography", "plain x ray", "conventional radiography", "chest x ray",
           "chest xray", "chest radiograph", "digital radiography", "digital x ray", "digital xray", "dr"),
    "ES": ("endoscopy", "endoscope", "colonoscopy", "gastroscopy", "bronchoscopy", "laparoscopy"),
    "GM": ("microscopy", "general microscopy"),
    "IVUS": ("intravascular ultrasound",),
    "MG": ("mammography", "mammogram", "mammo", "ffdm", "dbt", "tomosynthesis", "breast tomosynthesis",
           "digital mammography"),
    "MR": ("mri", "nmr", "fmri", "mra", "mrt", "mpmri", "magnetic resonance", "magnetic resonance imaging",
           "mr angiography", "magnetic resonance tomography"),
    "NM": ("nuclear medicine", "spect", "scintigraphy", "scintigram", "bone scintigraphy"),
    "OP": ("fundus", "fundus photography", "fundus photograph", "fundus photo", "color fundus", "colour fundus",
           "ophthalmic photography", "cfp"),
    "OPT": ("ophthalmic tomography", "retinal oct", "optical coherence tomography"),
    "OT": ("other",),
    "PT": ("pet", "positron emission tomography", "fdg pet"),
    "PX": ("panoramic x ray", "panoramic", "panoramic radiograph", "orthopantomogram", "opg", "opt xray"),
    "RF": ("fluoroscopy", "radio fluoroscopy", "radiofluoroscopy", "fluoro"),
    "SM": ("slide microscopy", "wsi", "whole slide imaging", "whole slide image", "histopathology", "histology",
           "pathology", "digital pathology"),
    "US": ("ultrasound", "ultrasonography", "ultra sound", "sonography", "sonogram", "echo", "echocardiography",
           "echocardiogram", "usg", "doppler"),
    "XA": ("angiography", "angiogram", "x ray angiography", "dsa", "digital subtraction angiography"),
    "XC": ("photo", "photograph", "photography", "external camera photography", "clinical photograph"),
}  # fmt: skip
_CODE_OF_WORD = {word: code for code, words in _WORDS.items() for word in words}
# Words that add nothing: "CT scan", "MR imaging", "an ultrasound examination of", "US images".
_FILLING_TEXT = (
    "scan scans scanner image images imaging exam examination study studies series picture pictures view views"
    " modality slice slices volume the a an"
)
_FILLING = frozenset(_FILLING_TEXT.split())
_NO_MODALITY = frozenset({"", "na", "n a", "nan", "none", "null", "unknown", "unspecified", "missing"})


def modality_code(text: str) -> str | None:
    """Return the DICOM code that `text` means, or None if it is neither a code nor a known word.

    Case, punctuation and words such as "scan" or "images" do not matter; several words must mean one code.

    Examples
    --------
    >>> [modality_code(text) for text in ("CT", " ct", "MRI", "CT scan", "X-Ray", "Magnetic Resonance Imaging")]
    ['CT', 'CT', 'MR', 'CT', 'DX', 'MR']
    >>> modality_code("PET/CT") is None
    True
    """
    for words in (_words_of(text), [word for word in _words_of(text) if word not in _FILLING]):
        codes = _codes_of(words)
        if len(codes) == 1:
            return codes.pop()
    return None


def _codes_of(words: list[str]) -> set[str]:
    """Return the codes of the phrases that `words` consist of, longest first; empty if some word is unknown."""
    codes = set()
    while words:
        for length in range(len(words), 0, -1):
            phrase = " ".join(words[:length])
            code = phrase.upper() if phrase.upper() in CODES else _CODE_OF_WORD.get(phrase)
            if code is not None:
                codes.add(code)
                words = words[length:]
                break
        else:
            return set()
    return codes


def means_no_modality(text: str) -> bool:
    """Return whether a cell says that the modality is unknown."""
    return " ".join(_words_of(text)) in _NO_MODALITY


def known_modalities() -> str:
    """Return the codes and some of the words, for a message."""
    words = ", ".join(f"{words[0]} = {code}" for code, words in _WORDS.items())
    return f"a DICOM code ({', '.join(sorted(CODES))}) or a word for one ({words})"


def _words_of(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())
