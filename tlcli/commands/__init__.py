"""The use cases, one file and one public function each."""
