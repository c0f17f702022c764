"""Why a run says what it says of a picture."""
