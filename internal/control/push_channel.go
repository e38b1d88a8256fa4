package control

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"perigee.example/origin"
)

// maxPreviews bounds the previews of a site: each keeps its files on every
// edge, and its paths in memory there.
const maxPreviews = 100

// channel checks a channel of a site that takes releases, and returns the hosts
// of a preview. An empty name becomes prod, whose hosts are the site's: nil.
func (s *Server) channel(site string, name *string) (hosts []string, err error) {
	if *name == "" {
		*name = origin.Prod
	}
	if err := origin.CheckChannel(*name); err != nil {
		return nil, refuse(http.StatusBadRequest, "", "%v", err)
	}
	if *name == origin.Prod {
		return nil, nil
	}
	k, err := s.site(site)
	if err != nil {
		return nil, err
	}
	if k.PreviewsBelow == "" {
		return nil, refuse(http.StatusConflict, "set previews = true in [site."+site+"], and see docs/push.md for the names that it needs", "site %s has no previews", site)
	}
	return k.previewHosts(*name), nil
}

// previewHosts is where a preview is served.
func (k *KnownSite) previewHosts(channel string) []string {
	if k.PreviewsBelow == "" { // they were turned off
		return []string{}
	}
	return []string{channel + "." + k.PreviewsBelow}
}

// at refuses when a channel is not at the generation that the caller saw.
func (s *SiteState) at(site, channel string, ifGeneration *uint64) error {
	if ifGeneration == nil {
		return nil
	}
	generation := uint64(0)
	if s != nil {
		_, generation = s.channel(channel)
	}
	if *ifGeneration == generation {
		return nil
	}
	where := "site " + site
	if channel != origin.Prod {
		where = "channel " + channel + " of site " + site
	}
	return refuse(http.StatusConflict, "look at `perigee channel list "+site+"` and decide anew",
		"%s is at generation %d, not %d: someone else changed it", where, generation, *ifGeneration)
}

// ChannelList is a site's channels: prod, then previews by name.
type ChannelList struct {
	Site     string        `json:"site"`
	Channels []ListChannel `json:"channels"`
}

// ListChannel is one of them. Prod is there before its first release, with
// generation 0.
type ListChannel struct {
	Channel    string        `json:"channel"`
	Release    origin.Digest `json:"release,omitzero"`
	Generation uint64        `json:"generation"`
	Activated  *time.Time    `json:"activated,omitempty"`
	Hosts      []string      `json:"hosts"`
}

func (s *Server) getChannels(_ http.ResponseWriter, r *http.Request) (any, error) {
	site := r.PathValue("site")
	if err := s.pushSite(site); err != nil {
		return nil, err
	}
	k, err := s.site(site)
	if err != nil {
		return nil, err
	}
	if s.c.Cluster != nil { // who asks after a lost answer must see what another has written
		ctx, cancel := context.WithTimeout(r.Context(), attendWait)
		err := s.readOn(ctx)
		cancel()
		if err != nil { // in a minority: what was known is better than nothing
			s.log.Debug("channels as they were", "err", err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.state.Sites[site]
	if st == nil {
		st = &SiteState{}
	}
	prod := ListChannel{Channel: origin.Prod, Release: st.Active, Generation: st.Generation, Hosts: k.Hosts}
	if r := st.find(st.Active); r != nil && !r.Activated.IsZero() {
		at := r.Activated.UTC()
		prod.Activated = &at
	}
	out := ChannelList{Site: site, Channels: []ListChannel{prod}}
	for _, name := range slices.Sorted(maps.Keys(st.Previews)) {
		p := st.Previews[name]
		at := p.At.UTC()
		out.Channels = append(out.Channels, ListChannel{Channel: name, Release: p.Active, Generation: p.Generation, Activated: &at, Hosts: k.previewHosts(name)})
	}
	return out, nil
}

// deleteChannel removes a preview; its releases stay. It works for a site whose
// previews were turned off, too.
func (s *Server) deleteChannel(_ http.ResponseWriter, r *http.Request) (any, error) {
	site, name := r.PathValue("site"), r.PathValue("channel")
	if err := s.pushSite(site); err != nil {
		return nil, err
	}
	q, err := query(r, "if_generation")
	if err != nil {
		return nil, err
	}
	var generation *uint64
	if text := q.Get("if_generation"); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return nil, refuse(http.StatusBadRequest, "", "if_generation is no number")
		}
		generation = &n
	}
	if name == origin.Prod {
		return nil, refuse(http.StatusConflict, "push or activate another release in its place", "channel prod is the site itself: it is never deleted")
	}
	if err := origin.CheckChannel(name); err != nil {
		return nil, refuse(http.StatusBadRequest, "", "%v", err)
	}
	e, err := s.command(r.Context(), KindChannel, Channel{Site: site, Channel: name}, func(st *State) error {
		state := st.Sites[site]
		if state == nil || state.Previews[name] == nil {
			return refuse(http.StatusNotFound, "`perigee channel list "+site+"` shows them", "site %s has no channel %s", site, name)
		}
		return state.at(site, name, generation)
	})
	if err != nil {
		return nil, err
	}
	return Appended{Seq: e.Seq}, nil
}

// Channels lists a site's channels.
func (c *Client) Channels(ctx context.Context, site string) (out ChannelList, err error) {
	err = c.do(ctx, http.MethodGet, sitePath(site, "/channels"), nil, &out)
	return out, err
}

// DeleteChannel removes a preview. ifGeneration, when not nil, refuses with
// status 409 unless the channel is at that generation.
func (c *Client) DeleteChannel(ctx context.Context, site, channel string, ifGeneration *uint64) (out Appended, err error) {
	if err := origin.CheckChannel(channel); err != nil { // it becomes part of a path
		return out, err
	}
	path := sitePath(site, "/channels/"+channel)
	if ifGeneration != nil {
		path += "?if_generation=" + strconv.FormatUint(*ifGeneration, 10)
	}
	err = c.do(ctx, http.MethodDelete, path, nil, &out)
	return out, err
}

// Promote makes the release that is active in a preview the active one of prod.
// It returns which. When somebody activates another release in prod meanwhile,
// nothing is done (409).
func (c *Client) Promote(ctx context.Context, site, channel string) (release origin.Digest, out Activated, err error) {
	list, err := c.Channels(ctx, site)
	if err != nil {
		return release, out, err
	}
	from, names := -1, []string{}
	for i, l := range list.Channels {
		if l.Channel == channel {
			from = i
		}
		names = append(names, l.Channel)
	}
	prod := list.Channels[0]
	switch {
	case channel == origin.Prod:
		return release, out, errors.New("promote takes a preview to prod: name the preview")
	case from < 0:
		return release, out, fmt.Errorf("site %s has no channel %.80q; it has: %s", site, channel, strings.Join(names, ", "))
	case list.Channels[from].Release == prod.Release:
		return release, out, fmt.Errorf("release %s of channel %s is active in prod already", prod.Release, channel)
	}
	release = list.Channels[from].Release
	out, err = c.Activate(ctx, site, origin.Prod, release, &prod.Generation)
	return release, out, err
}
