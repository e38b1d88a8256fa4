package control

import (
	"context"
	"errors"
	"net/http"
	"time"

	"perigee.example/origin"
)

// forgetRequest is the body of a call that forgets.
type forgetRequest struct {
	// Releases are those to forget; none: those that the site does not keep.
	Releases []origin.Digest `json:"releases,omitempty"`
	DryRun   bool            `json:"dry_run,omitempty"`
}

// Forgot answers it: the releases, the oldest first; Seq is 0 when there are
// none, and in a dry run.
type Forgot struct {
	Seq      uint64          `json:"seq,omitempty"`
	Site     string          `json:"site"`
	Releases []ForgotRelease `json:"releases"`
	// KeepReleases and KeepSeconds are what the site keeps (see Retain).
	KeepReleases int   `json:"keep_releases"`
	KeepSeconds  int64 `json:"keep_seconds"`
}

// ForgotRelease is one of them.
type ForgotRelease struct {
	Release  origin.Digest `json:"release"`
	Files    int           `json:"files"`
	Bytes    int64         `json:"bytes"`
	LastUsed time.Time     `json:"last_used"` // sealed, or active last
}

func (s *Server) forget(w http.ResponseWriter, r *http.Request) (any, error) {
	site := r.PathValue("site")
	if err := s.pushSite(site); err != nil {
		return nil, err
	}
	k, err := s.site(site)
	if err != nil {
		return nil, err
	}
	var req forgetRequest
	if err := readJSON(w, r, &req); err != nil {
		return nil, err
	}
	if len(req.Releases) > MaxForgotten {
		return nil, refuse(http.StatusBadRequest, "call again for the others", "%d releases: at most %d are forgotten at a time", len(req.Releases), MaxForgotten)
	}
	for _, d := range req.Releases {
		if err := checkDigest(d); err != nil {
			return nil, refuse(http.StatusBadRequest, "", "%v", err)
		}
	}
	return s.forgetOf(r.Context(), k, req, s.now())
}

// errNothing: there is nothing to do, so nothing is written.
var errNothing = errors.New("nothing to do")

// forgetOf forgets the releases that are named, or else those of a site that are
// due at now.
func (s *Server) forgetOf(ctx context.Context, k *KnownSite, req forgetRequest, now time.Time) (out Forgot, err error) {
	entry := &Forget{Site: k.Name}
	e, err := s.command(ctx, KindForget, entry, func(st *State) error {
		out = Forgot{Site: k.Name, Releases: []ForgotRelease{}, KeepReleases: k.Retain.Releases, KeepSeconds: int64(k.Retain.For / time.Second)}
		entry.Releases = nil
		list, err := s.toForget(st.Sites[k.Name], k, req.Releases, now)
		if err != nil {
			return err
		}
		for _, r := range list {
			out.Releases = append(out.Releases, ForgotRelease{r.Release.Release, r.Files, r.Bytes, r.lastUsed().UTC()})
			entry.Releases = append(entry.Releases, r.Release.Release)
		}
		if req.DryRun || len(list) == 0 {
			return errNothing
		}
		return nil
	})
	if err == errNothing {
		return out, nil
	}
	out.Seq = e.Seq
	return out, err
}

// toForget are the releases that named says, or those that are due. Called with mu held.
func (s *Server) toForget(st *SiteState, k *KnownSite, named []origin.Digest, now time.Time) (list []*SealedRelease, err error) {
	if st == nil {
		st = &SiteState{}
	}
	if len(named) == 0 {
		list = st.due(k.Retain, now, func(d origin.Digest) bool {
			o := s.open[openKey{k.Name, d}]
			return o != nil && s.now().Sub(o.touched) < openAge
		})
		return list[:min(len(list), MaxForgotten)], nil
	}
	for _, d := range named {
		r := st.find(d)
		switch {
		case r == nil:
			return nil, st.unknown(k.Name, d)
		case st.Active == d:
			return nil, refuse(http.StatusConflict, "push another one, or roll back, first", "release %s is active at site %s", d, k.Name)
		case st.inUse(d):
			return nil, refuse(http.StatusConflict, "`perigee channel list "+k.Name+"` shows where; delete that preview first", "release %s is active in a preview of site %s", d, k.Name)
		}
		list = append(list, r)
	}
	return list, nil
}

// unknown is the refusal of a release that cannot be activated.
func (s *SiteState) unknown(site string, release origin.Digest) *Error {
	if s != nil {
		if f := s.forgotten(release); f != nil {
			return refuse(http.StatusNotFound, "push its folder again: the same files are the same release", "release %s of site %s was forgotten on %s (seq %d)", release, site, f.At.UTC().Format(time.DateOnly), f.Seq)
		}
	}
	return refuse(http.StatusNotFound, "`perigee releases "+site+"` lists them", "release %s of site %s is not sealed here", release, site)
}

// Forget forgets sealed releases of a site that are active nowhere: those named,
// by the beginning of their ids, or, of none, those that the site does not keep. With
// dryRun it says which, and forgets none.
func (c *Client) Forget(ctx context.Context, site string, ids []string, dryRun bool) (out Forgot, err error) {
	req := forgetRequest{DryRun: dryRun}
	if len(ids) > 0 {
		list, err := c.Releases(ctx, site)
		if err != nil {
			return out, err
		}
		for _, id := range ids {
			r, err := findRelease(list, id)
			if err != nil {
				return out, err
			}
			req.Releases = append(req.Releases, r.Release)
		}
	}
	err = c.do(ctx, http.MethodPost, sitePath(site, "/forget"), req, &out)
	return out, err
}
