package lease

// DrawStep is the first step of Draw, for a test that crashes after it.
func DrawStep(g Guest, to string) Step {
	return Step{Guest: g, From: []State{Shelved}, To: Preparing, claim: &to}
}
